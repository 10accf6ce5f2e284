"""The detector of instructions to a model in texts that tools return or describe (no I/O).

Each rule has a score. Rules that are certain enough are findings by themselves. Weaker ones are
findings only together: the certainty of a text is the noisy-or of its rules.
"""

import heapq
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import re2

from toolbus_common.guards.injection.encoded_text import decoded_texts
from toolbus_common.guards.injection.hidden_text import RULES as HIDDEN_RULES
from toolbus_common.guards.injection.hidden_text import hidden_runs
from toolbus_common.guards.injection.rule_set import (
    Patterns,
    Rule,
    all_rules,
    data_digest,
    patterns_of,
)
from toolbus_common.guards.injection.views import (
    View,
    encoded,
    folded,
    further_views,
    has_invisible,
    plain_view,
    views_without_codes,
)
from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.joined_texts import MOST_MATCHES
from toolbus_common.guards.texts.time_limit import check_time

LEAST = 0.5  # the score from which a finding is reported
ENCODED = "encoded-instruction"
RULES = {
    **{rule.id: rule.about for rule, _ in all_rules()},
    **HIDDEN_RULES,
    ENCODED: "An encoded part of the text contains instructions.",
}
_ALGORITHM = "2"
_LONGEST_PHRASE = 400
_LONGEST_BLOCK = 4000
_AROUND = 300
_QUOTED = 0.45  # the part of the score that remains for a quotation
# Encoded text, single letters, words in two scripts, and control characters.
_UNUSUAL = re2.compile(
    r"[A-Za-z0-9+/_-]{32}|%[0-9a-fA-F]{2}[A-Za-z0-9._~+-]{0,40}%[0-9a-fA-F]"
    r"|\b(?:[A-Za-z][ .*_\-]{1,3}){6}[A-Za-z]\b|[A-Za-z][\p{Cyrillic}\p{Greek}]"
    r"|[\p{Cyrillic}\p{Greek}][A-Za-z]"
    r"|[\x00-\x06\x08\x0e-\x1b\x7f\x{80}-\x{84}\x{86}-\x{9f}]"
)
_HIDDEN = 0.97  # the score of instructions in hidden characters
_ABOUT_ATTACKS = re2.compile(
    r"prompt.?injection|jail.?break|inject(?:ed|ion|ing)|attack|adversar|malicious|payload"
    r"|exploit|vulnerab|owasp|red.?team|guardrail|\bsuch as\b"
    r"|\bfor example\b|\be\.g\.|\bexamples?\b"
    r"|beispiel|exemple|ejemplo|phrases? like|detect|sanitiz"
    r"|untrusted|classif|manipulat|test case|poison"
)
_REPORTED = re2.compile(
    r"(?:[\"'`*]|\b(?:to|will|would|can|could|may|might|that|which|who|by|they|it|attackers?|saying"
    r"|says|like|and|or|of|could also|and then|model|llm|ai|assistant)\s)$"
)
_TO_READER = re2.compile(r"\b(?:you|must|need|want|have|please|required|should)\b[^.!?\n]{0,20}$")
_ENDS = (".", "!", "?", "\n", "\u3002", "\uff01", "\uff1f")


class InjectionDetector:
    """The detector of a guard of kind injection.

    `rules` are the names of the rules that apply; all of them if None. With `definitions`, the
    texts belong to the definition of a tool, where instructions are less likely to be harmless.
    """

    def __init__(
        self,
        rules: Collection[str] | None = None,
        except_rules: Collection[str] = (),
        *,
        definitions: bool = False,
    ) -> None:
        """Compile the rules. Raises `ValueError` about unknown names."""
        named = RULES.keys() if rules is None else set(rules)
        if unknown := sorted((set(named) | set(except_rules)) - RULES.keys()):
            raise ValueError(f"unknown rules: {', '.join(unknown)}; known: {', '.join(RULES)}")
        self._names = frozenset(named) - frozenset(except_rules)
        self._definitions = definitions
        self._patterns: Patterns = patterns_of(self._names)

    @property
    def version(self) -> str:
        """The version of the rules."""
        return f"injection-{_ALGORITHM}.{data_digest()}"

    def find(self, texts: Sequence[str]) -> list[Finding]:
        """Return the places of instructions to a model, sorted by position, without overlap."""
        joined = "\n".join(texts)
        small = joined.lower() if joined.isascii() else folded(joined)
        candidates = self._patterns.candidates(encoded(small))
        unusual = _is_unusual(joined)
        if not unusual and not candidates:
            return []
        found: list[Finding] = []
        for number, text in enumerate(texts):
            check_time()
            is_unusual = unusual and _is_unusual(text)
            found += _limited(self._of_text(number, text, candidates, unusual=is_unusual), text)
        return _without_overlap(self._certain(found))

    def _of_text(
        self, number: int, text: str, candidates: Sequence[int], *, unusual: bool
    ) -> Iterator[Finding]:
        view = plain_view(text)
        if view.positions:
            candidates = self._patterns.candidates(encoded(view.text))
        yield from self._in_view(number, view, candidates)
        if not unusual:
            return
        for other in (*views_without_codes(text), *further_views(view)):
            yield from self._in_view(number, other, self._candidates(other))
        for run in hidden_runs(text):
            if run.text is not None:
                for each in self._in_view(number, run.text, self._candidates(run.text)):
                    yield Finding(each.rule, number, each.start, each.end, _HIDDEN)
            if run.rule in self._names:
                score = run.definition if self._definitions else run.score
                yield Finding(run.rule, number, run.start, run.end, score)
        for decoded in decoded_texts(text):
            inner = [*self._in_view(number, decoded, self._candidates(decoded))]
            if any(each.score >= LEAST for each in inner):
                yield from inner
                if ENCODED in self._names:
                    whole = decoded.span(0, len(decoded.text))
                    yield Finding(ENCODED, number, *whole, max(each.score for each in inner) - 0.01)

    def _candidates(self, view: View) -> list[int]:
        return self._patterns.candidates(encoded(view.text))

    def _in_view(self, number: int, view: View, candidates: Sequence[int]) -> Iterator[Finding]:
        """Return the findings of patterns in one form of a text."""
        if not candidates:
            return
        data = encoded(view.text)
        for candidate in candidates:
            rule = self._patterns.rule(candidate)
            at_byte = at_char = covered = 0
            for first, last in self._patterns.matches(candidate, data):
                check_time()
                start = at_char + _length(data[at_byte:first])
                end = start + _length(data[first:last])
                at_byte, at_char = last, end
                if end <= covered or end == start:
                    continue
                score = self._score(rule, view.text, start, end)
                start, end = _extended(rule, view.text, start, end)
                start, covered = max(start, covered), end
                yield Finding(rule.id, number, *view.span(start, end), score)

    def _score(self, rule: Rule, text: str, start: int, end: int) -> float:
        score = rule.definition if self._definitions else rule.score
        if not rule.quotable:
            return score
        before = text[max(0, start - 40) : start]
        reported = _REPORTED.search(encoded(before)) is not None
        if not reported or _TO_READER.search(encoded(before)) is not None:
            return score
        around = text[max(0, start - _AROUND) : end + _AROUND]
        return score * _QUOTED if _ABOUT_ATTACKS.search(encoded(around)) is not None else score

    def _certain(self, found: Sequence[Finding]) -> list[Finding]:
        """Return certain findings, and weak findings of texts whose scores are certain together."""
        certain = [each for each in found if each.score >= LEAST]
        weak: dict[int, dict[str, float]] = {}
        for each in found:
            if each.score < LEAST:
                known = weak.setdefault(each.text, {})
                known[each.rule] = max(known.get(each.rule, 0.0), each.score)
        together = {text: _noisy_or(scores.values()) for text, scores in weak.items()}
        return certain + [
            Finding(each.rule, each.text, each.start, each.end, round(together[each.text], 3))
            for each in found
            if each.score < LEAST and together[each.text] >= LEAST
        ]


def _limited(found: Iterator[Finding], text: str) -> list[Finding]:
    """Return the findings in a text; if there are too many, one that covers all of them."""
    kept = [*islice(found, MOST_MATCHES + 1)]
    if len(kept) <= MOST_MATCHES:
        return kept
    best = max(kept, key=lambda each: each.score)
    first = min(each.start for each in kept)
    return [Finding(best.rule, best.text, first, len(text), best.score)]


def _is_unusual(text: str) -> bool:
    """Return whether other forms of the text must be searched, in addition to the plain text."""
    return has_invisible(text) or _UNUSUAL.search(encoded(text)) is not None


def _noisy_or(scores: Collection[float]) -> float:
    remaining = 1.0
    for score in scores:
        remaining *= 1 - score
    return 1 - remaining


def _length(data: bytes) -> int:
    return len(data) if data.isascii() else len(data.decode("utf-8", "replace"))


def _extended(rule: Rule, text: str, start: int, end: int) -> tuple[int, int]:
    """Return the start and the end of the sentence or element that contains a match."""
    if rule.block:
        after = text[end : end + _LONGEST_BLOCK]
        closing = [place for mark in ("</", "-->", "[/") if (place := after.find(mark)) >= 0]
        if closing:
            first = min(closing)
            tail = after.find(">", first)
            return start, end + (tail + 1 if tail >= 0 else first)
        return start, end
    if not rule.directive:
        return start, end
    after = text[end : end + _LONGEST_PHRASE]
    ends = [place for mark in _ENDS if (place := after.find(mark)) >= 0]
    return start, end + (min(ends) if ends else len(after))


def _without_overlap(found: list[Finding]) -> list[Finding]:
    """Return the findings sorted by position. If two overlap, the less certain one is shortened."""
    queue = [(each.text, each.start, -each.score, each.end, each.rule) for each in found]
    heapq.heapify(queue)
    kept: list[tuple[int, int, float, int, str]] = []
    while queue:
        text, start, score, end, rule = heapq.heappop(queue)
        if start >= end:
            continue
        if not kept or kept[-1][0] != text or kept[-1][3] <= start:
            kept.append((text, start, score, end, rule))
            continue
        _, last_start, last_score, last_end, last_rule = kept[-1]
        if score >= last_score:  # scores are negative: the last one is at least as certain
            if end > last_end and last_rule != rule:
                heapq.heappush(queue, (text, last_end, score, end, rule))
            elif end > last_end:
                kept[-1] = (text, last_start, last_score, end, last_rule)
            continue
        kept.pop()
        if last_start < start:
            kept.append((text, last_start, last_score, start, last_rule))
        kept.append((text, start, score, end, rule))
        if last_end > end and last_rule != rule:
            heapq.heappush(queue, (text, end, last_score, last_end, last_rule))
    return [Finding(rule, text, start, end, -score) for text, start, score, end, rule in kept]


def known_rules() -> frozenset[str]:
    """Return the names of all rules."""
    return frozenset(RULES)
