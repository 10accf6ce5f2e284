"""Division of a document's texts into requests to a service, and the combined result (no I/O).

Each text is sent once, even if the document contains it several times. A long text is sent in parts
that overlap, so that a match at the end of a part is complete in the next one.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from toolbus_common.contracts.guards import ServiceVerdict
from toolbus_common.errors import UpstreamInvalidError
from toolbus_common.guards.texts.json_texts import JsonTexts
from toolbus_executor.guard_services.adapters.base import MAX_FINDINGS, Limits, ServiceFindings

MAX_REQUESTS = 100  # for one content
OVERLAP = 200  # characters
SEPARATOR = "\n"


class Part(Struct, frozen=True):
    """A part of a text: the text's number, where the part begins in it, and the part itself.

    `at` is the position of the part in the sent text.
    """

    text: int
    start: int
    content: str
    at: int = 0


class Sent(Struct, frozen=True):
    """One text of a request, and the parts it consists of."""

    text: str
    parts: tuple[Part, ...]


class Requests:
    """The requests about one document.

    Raises:
        ValueError: the document is not JSON, or is nested too deeply.
        UpstreamInvalidError: it needs too many requests.

    """

    def __init__(self, content: bytes, limits: Limits) -> None:
        self._document = JsonTexts(content)
        self.texts = [*dict.fromkeys(each for each in self._document.texts if each.strip())]
        self.requests = [*_requests_of(self.texts, limits)]
        if len(self.requests) > MAX_REQUESTS:
            raise UpstreamInvalidError(
                f"The content needs {len(self.requests)} requests to the service, more than "
                f"{MAX_REQUESTS}; exclude large members with the guard's 'fields'."
            )

    def verdict(
        self, found: Sequence[ServiceFindings], rules: Collection[str] | None, but: Collection[str]
    ) -> ServiceVerdict:
        """Return the verdict on the document.

        `found` are the results of the requests, in their order. Only the findings of `rules` count;
        None means all rules. Findings of the rules in `but` do not count.
        """
        scores: dict[str, float] = {}
        unlocated = False
        for each in found:
            for rule, score in each.rules.items():
                if (rules is None or rule in rules) and rule not in but:
                    scores[rule] = max(score, scores.get(rule, 0.0))
                    unlocated |= rule not in each.located
        if not scores:
            return ServiceVerdict(version=_version_of(found))
        content = "" if unlocated else self._changed(found, frozenset(scores))
        return ServiceVerdict(
            findings=tuple(sorted(scores)[:MAX_FINDINGS]),
            score=max(scores.values()),
            content=content,
            version=_version_of(found),
        )

    def _changed(self, found: Sequence[ServiceFindings], rules: frozenset[str]) -> str:
        """Return the document without the findings; empty if it cannot be made."""
        whole = [each.content for each in found if each.content is not UNSET]
        if whole:
            return msgspec.json.encode(whole[0]).decode() if len(found) == 1 else ""
        texts: dict[str, str] = {}
        for request, each in zip(self.requests, found, strict=True):
            replaced = each.replaced
            if replaced is not None and not _replace_whole(self.texts, request, replaced, texts):
                return ""
        removed: dict[int, list[tuple[int, int, str]]] = {}
        for request, each in zip(self.requests, found, strict=True):
            for span in each.spans:
                if span.rule in rules and not _locate(request, span, removed):
                    return ""
        for number, spans in removed.items():
            text = self.texts[number]
            if text in texts:
                return ""  # replaced in two ways
            texts[text] = _without(text, spans)
        return self._document.replaced(lambda _number, text: texts.get(text, text)).decode()


def _version_of(found: Iterable[ServiceFindings]) -> str:
    return next((each.version for each in found if each.version), "")


def _requests_of(texts: Sequence[str], limits: Limits) -> Iterator[tuple[Sent, ...]]:
    parts = [part for number, text in enumerate(texts) for part in _parts(number, text, limits)]
    sent = _joined(parts, limits) if limits.joined else [
        Sent(part.content, (part,)) for part in parts
    ]  # fmt: skip
    request: list[Sent] = []
    size = 0
    for each in sent:
        if request and (len(request) == limits.most or size + len(each.text) > limits.total):
            yield tuple(request)
            request, size = [], 0
        request.append(each)
        size += len(each.text)
    if request:
        yield tuple(request)


def _parts(number: int, text: str, limits: Limits) -> Iterator[Part]:
    start, longest = 0, min(limits.longest, limits.total)
    while len(text) - start > longest:
        yield Part(number, start, text[start : start + longest])
        start += longest - min(OVERLAP, longest // 2)
    yield Part(number, start, text[start:])


def _joined(parts: Iterable[Part], limits: Limits) -> Iterator[Sent]:
    longest = min(limits.longest, limits.total)
    held: list[Part] = []
    size = 0
    for part in parts:
        if held and size + len(SEPARATOR) + len(part.content) > longest:
            yield _sent(held)
            held, size = [], 0
        at = size + len(SEPARATOR) if held else 0
        held.append(Part(part.text, part.start, part.content, at))
        size = at + len(part.content)
    if held:
        yield _sent(held)


def _sent(parts: list[Part]) -> Sent:
    return Sent(SEPARATOR.join(part.content for part in parts), tuple(parts))


def _replace_whole(
    texts: Sequence[str],
    request: Sequence[Sent],
    replaced: Sequence[str],
    changed: dict[str, str],
) -> bool:
    """Note the texts that a service replaced; return whether each of them is a whole text."""
    if len(request) != len(replaced):
        return False
    for sent, text in zip(request, replaced, strict=True):
        if text == sent.text:
            continue
        if len(sent.parts) != 1 or sent.parts[0].content != texts[sent.parts[0].text]:
            return False
        changed[sent.text] = text
    return True


def _locate(
    request: Sequence[Sent], span: Any, removed: dict[int, list[tuple[int, int, str]]]
) -> bool:
    """Note the place of a finding in its texts; return whether it is a valid place."""
    if not 0 <= span.text < len(request):
        return False
    sent = request[span.text]
    if not 0 <= span.start < span.end <= len(sent.text):
        return False
    first = bisect_right([part.at for part in sent.parts], span.start) - 1
    for part in sent.parts[first:]:
        start, end = max(0, span.start - part.at), min(len(part.content), span.end - part.at)
        if part.at >= span.end:
            break
        if start < end:
            places = removed.setdefault(part.text, [])
            places.append((part.start + start, part.start + end, span.rule))
    return True


def _without(text: str, spans: list[tuple[int, int, str]]) -> str:
    """Return a text with a marker in place of each finding. Overlapping ones have one marker."""
    parts, at = [], 0
    for start, end, rule in sorted(spans):
        if start >= at:
            parts += [text[at:start], f"[redacted:{rule}]"]
        at = max(at, end)
    return "".join([*parts, text[at:]])
