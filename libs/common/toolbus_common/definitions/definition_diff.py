"""Differences between two definitions, member by member, as lines for review."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from toolbus_common.crypto.canonical_json import canonical
from toolbus_common.definitions.visible_text import BREAK, revealed, wrapped

ADDED, REMOVED, CHANGED = "+", "-", "~"
WIDTH = 100
SHORT = 80  # characters; a longer text is compared word by word
KEPT = 40  # characters of unchanged context
MAX_WORDS = 1000  # compared one by one; a longer text is shown as replaced

_PLAIN = re.compile(r"[A-Za-z0-9_$-]+")
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Difference:
    """One member that was added, removed or changed."""

    sign: str
    path: str
    before: Any = None
    after: Any = None

    def lines(self) -> list[str]:
        """Return display lines: the path, the old value and the new value."""
        return [f"{self.sign} {revealed(self.path)}", *(f"    {line}" for line in self._values())]

    def _values(self) -> Iterator[str]:
        texts = isinstance(self.before, str) and isinstance(self.after, str)
        if self.sign == CHANGED and texts and max(len(self.before), len(self.after)) > SHORT:
            yield from _words(self.before, self.after)
            return
        if self.sign != ADDED:
            yield from _whole(REMOVED, self.before)
        if self.sign != REMOVED:
            yield from _whole(ADDED, self.after)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Return each member whose JSON value differs, sorted by path."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    found = []
    for path in sorted(before.keys() | after.keys()):
        if path not in before:
            found.append(Difference(ADDED, path, after=after[path]))
        elif path not in after:
            found.append(Difference(REMOVED, path, before=before[path]))
        elif canonical(before[path]) != canonical(after[path]):
            found.append(Difference(CHANGED, path, before[path], after[path]))
    return found


def texts(value: Any) -> Iterator[str]:
    """Yield each text in a definition, including member names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from (text for inner in value.values() for text in texts(inner))
    elif isinstance(value, list):
        yield from (text for inner in value for text in texts(inner))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf value with its path; a list of scalars is one leaf."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            shown = name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)
            yield from _leaves(inner, f"{path}.{shown}" if path else shown)
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


def _whole(sign: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) <= SHORT and "\n" not in value:
        yield from _marked(sign, f'"{revealed(value)}"')
    elif isinstance(value, str):
        yield from _text(sign, value)
    else:
        yield from _marked(sign, revealed(json.dumps(value, ensure_ascii=False)))


def _text(sign: str, text: str) -> Iterator[str]:
    """Yield a text by line, with its line breaks made visible."""
    *lines, last = text.split("\n")
    for line in lines:
        yield from _marked(sign, revealed(line) + BREAK)
    yield from _marked(sign, revealed(last))


def _marked(sign: str, text: str) -> Iterator[str]:
    return (f"{sign} {piece}" for piece in wrapped(text, WIDTH))


def _words(old: str, new: str) -> Iterator[str]:
    """Yield the lines of a word diff; only unchanged text is shortened."""
    before, after = _WORDS.findall(old), _WORDS.findall(new)
    start = _same(before, after)
    end = _same(before[start:][::-1], after[start:][::-1])
    yield from _context("".join(before[:start]))
    yield from _compared(before[start : len(before) - end], after[start : len(after) - end])
    yield from _context("".join(before[len(before) - end :]))


def _same(before: list[str], after: list[str]) -> int:
    """Return the length of the common prefix of two word lists."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(before), len(after)))


def _compared(before: list[str], after: list[str]) -> Iterator[str]:
    if max(len(before), len(after)) > MAX_WORDS:
        yield from _replaced("".join(before), "".join(after))
        return
    for what, i1, i2, j1, j2 in SequenceMatcher(None, before, after).get_opcodes():
        if what == "equal":
            yield from _context("".join(before[i1:i2]))
        else:
            yield from _replaced("".join(before[i1:i2]), "".join(after[j1:j2]))


def _replaced(old: str, new: str) -> Iterator[str]:
    if old:
        yield from _text(REMOVED, old)
    if new:
        yield from _text(ADDED, new)


def _context(text: str) -> Iterator[str]:
    """Yield unchanged text; the middle of a long text is replaced by its length."""
    if not text:
        return
    left_out = len(text) - 2 * KEPT
    if left_out <= KEPT:
        yield from _text(" ", text)
        return
    yield from _text(" ", text[:KEPT])
    yield f"  … {left_out} unchanged characters …"
    yield from _text(" ", text[-KEPT:])
