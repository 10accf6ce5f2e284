"""Replacement of findings in a JSON document by placeholders (no I/O)."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from msgspec import Struct

from toolbus_common.guards.placeholders import PLACEHOLDER
from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.joined_texts import MOST_MATCHES
from toolbus_common.guards.texts.json_texts import JsonTexts
from toolbus_common.guards.texts.time_limit import check_time

MARK = "[redacted:"  # begins every placeholder
SHORTEST_REPEATED = 6  # shorter values are replaced only where a rule matched
MOST_REPEATED = 256  # values that are searched for in the whole document
MOST_SEARCHED = 1 << 28  # characters, over all values


class Redacted(Struct, frozen=True):
    """A document without its findings. `values` maps placeholders to what they replaced."""

    value: Any
    values: dict[str, str]


def redact(
    document: JsonTexts, findings: Iterable[Finding], placeholder: Callable[[str, str], str]
) -> Redacted:
    """Return a document with its findings replaced by `placeholder(rule, value)`.

    A value that a rule matched is replaced in all texts, because a rule can need a context that
    only one of them has: a structured result and the text that repeats it get the same
    placeholders. Raises `CollisionError`.
    """
    spans: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    for each in findings:
        spans[each.text].append((each.start, each.end, each.rule))
    _add_repeated(spans, document.texts)
    values: dict[str, str] = {}

    def replace(index: int, text: str) -> str:
        if index not in spans:
            return text
        check_time()
        parts, last = [], 0
        for start, end, rule in _merged(spans[index]):
            shown = placeholder(rule, text[start:end])
            values[shown] = text[start:end]
            parts += [text[last:start], shown]
            last = end
        return "".join([*parts, text[last:]])

    return Redacted(document.renewed(replace), values)


def without_placeholders(texts: Sequence[str], findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are not inside a placeholder of an earlier redaction."""
    known: dict[int, list[tuple[int, int]]] = {}
    left = []
    for each in findings:
        spans = known.get(each.text)
        if spans is None:
            text = texts[each.text]
            found = PLACEHOLDER.finditer(text) if MARK in text else ()
            spans = known[each.text] = [match.span() for match in found]
        if not spans or not _is_inside(spans, each):
            left.append(each)
    return left


def _is_inside(spans: list[tuple[int, int]], found: Finding) -> bool:
    """Return whether one of the sorted spans contains the finding."""
    at = bisect_right(spans, found.start, key=itemgetter(0)) - 1
    return at >= 0 and found.end <= spans[at][1]


def _add_repeated(spans: dict[int, list[tuple[int, int, str]]], texts: Sequence[str]) -> None:
    """Add the other positions of the values that were found."""
    values = {
        texts[index][start:end]: rule
        for index, found in spans.items()
        for start, end, rule in found
        if end - start >= SHORTEST_REPEATED
    }
    left = MOST_SEARCHED // max(1, sum(map(len, texts)))
    for value, rule in [*values.items()][: min(MOST_REPEATED, left)]:
        check_time()
        for index, text in enumerate(texts):
            if value in text:
                spans[index] += ((start, end, rule) for start, end in _places(text, value))


def _places(text: str, value: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of a value in a text; after `MOST_MATCHES`, one span for the rest."""
    at, found = text.find(value), 0
    while at >= 0 and found < MOST_MATCHES:
        yield at, at + len(value)
        at, found = text.find(value, at + len(value)), found + 1
    if at >= 0:
        yield at, len(text)


def _merged(spans: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Return spans without overlap, in order. Overlapping spans become one, of the first rule."""
    merged: list[tuple[int, int, str]] = []
    for start, end, rule in sorted(spans, key=lambda each: (each[0], -each[1])):
        if merged and start < merged[-1][1]:
            before = merged[-1]
            merged[-1] = (before[0], max(before[1], end), before[2])
        else:
            merged.append((start, end, rule))
    return merged
