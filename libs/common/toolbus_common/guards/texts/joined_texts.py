"""The texts of a document as one text of ASCII bytes, with their positions (no I/O)."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.time_limit import check_time

# Between two texts. It reads like an assignment, so that the name of a JSON member counts as the
# name of its value. No secret contains a line break, so no match of a secret continues after it.
SEPARATOR = "\n=\n"
MOST_MATCHES = 4096  # of one pass in one text; after these, the rest of the text is one match
Match = tuple[int, int, str, float]  # start, end, rule, score


class JoinedTexts:
    """Texts as one sequence of bytes, one byte per character.

    Every non-ASCII character is a question mark, so that positions are the same as in the texts.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.text = SEPARATOR.join(texts)
        self.data = self.text.encode("ascii", "replace")
        self._texts = texts

    @cached_property
    def ends(self) -> Sequence[int]:
        """The end of each text, after its separator; computed only if there is a match."""
        return [*accumulate(len(each) + len(SEPARATOR) for each in self._texts)]

    def limit(self) -> "MatchLimit":
        """Return a limit for the matches of one pass."""
        return MatchLimit(self)

    def findings(self, matches: Iterable[Match]) -> list[Finding]:
        """Return matches (start, end, rule, score) as findings in the texts, without overlap.

        Of overlapping matches, the one with the higher score names the finding, which covers both.
        """
        found: list[Finding] = []
        for start, end, rule, score in _merged(sorted(matches)):
            found.extend(self._parts(start, end, rule, score))
        return found

    def _parts(self, start: int, end: int, rule: str, score: float) -> Iterator[Finding]:
        """Yield a finding for each text that the match extends over."""
        text = bisect_right(self.ends, start)
        while start < end:
            first = self.ends[text - 1] if text else 0
            last = self.ends[text] - len(SEPARATOR)
            if start < min(end, last):
                yield Finding(rule, text, start - first, min(end, last) - first, score)
            start = self.ends[text]
            text += 1


class MatchLimit:
    """A limit of the matches in each text, for one pass over all texts.

    Matches before `covered` are in the rest of a text that has become one match.
    """

    def __init__(self, joined: JoinedTexts) -> None:
        self.covered = 0
        self._joined = joined

    def candidates(self, expression: Any, data: bytes) -> Iterator[Any]:
        """Yield the matches of an expression in all texts, until the time is up."""
        at = -1
        while at < self.covered:
            at = self.covered
            for candidate in expression.finditer(data, at):
                check_time()
                yield candidate
                if self.covered > at:
                    break

    def limited(self, matches: Iterable[Match]) -> Iterator[Match]:
        """Yield matches in order; after `MOST_MATCHES` of a text, its rest as one match."""
        found = text_end = 0
        for match in matches:
            start = match[0]
            if start < self.covered:
                continue
            if start >= text_end:
                ends = self._joined.ends
                found, text_end = 0, ends[min(bisect_right(ends, start), len(ends) - 1)]
            found += 1
            if found > MOST_MATCHES:
                self.covered = text_end
                yield start, text_end - len(SEPARATOR), *match[2:]
            else:
                yield match


def without_overlap(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, sorted, with overlapping findings merged."""
    by_text: dict[int, list[Match]] = {}
    for each in findings:
        by_text.setdefault(each.text, []).append((each.start, each.end, each.rule, each.score))
    return [
        Finding(rule, text, start, end, score)
        for text, matches in sorted(by_text.items())
        for start, end, rule, score in _merged(sorted(matches))
    ]


def _merged(matches: list[Match]) -> Iterator[Match]:
    """Yield the sorted matches, with overlapping matches merged."""
    if not matches:
        return
    start, end, rule, score = matches[0]
    for each in matches[1:]:
        if each[0] < end:
            end = max(end, each[1])
            rule, score = max((rule, score), each[2:], key=lambda one: one[1])
        else:
            yield start, end, rule, score
            start, end, rule, score = each
    yield start, end, rule, score
