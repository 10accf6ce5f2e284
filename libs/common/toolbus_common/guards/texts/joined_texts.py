"""The texts of a document as one text of ASCII bytes, with their positions (no I/O)."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from toolbus_common.guards.texts.findings import Finding

# Between two texts. It reads like an assignment, so that the name of a JSON member counts as the
# name of its value. No secret contains a line break, so none goes on behind it.
SEPARATOR = "\n=\n"


class JoinedTexts:
    """Texts as one sequence of bytes, one byte per character.

    Every other character than ASCII is a question mark, so that positions are those in the texts.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.text = SEPARATOR.join(texts)
        self.data = self.text.encode("ascii", "replace")
        self._ends = [*accumulate(len(each) + len(SEPARATOR) for each in texts)]

    def findings(self, matches: Iterable[tuple[int, int, str, float]]) -> list[Finding]:
        """Return matches (start, end, rule, score) as findings in the texts, without overlap.

        Of overlapping matches, the one with the higher score names the finding, which covers both.
        """
        found: list[Finding] = []
        for start, end, rule, score in _merged(sorted(matches)):
            found.extend(self._parts(start, end, rule, score))
        return found

    def _parts(self, start: int, end: int, rule: str, score: float) -> Iterator[Finding]:
        """Yield a finding for each text that the match extends over."""
        text = bisect_right(self._ends, start)
        while start < end:
            first = self._ends[text - 1] if text else 0
            last = self._ends[text] - len(SEPARATOR)
            if start < min(end, last):
                yield Finding(rule, text, start - first, min(end, last) - first, score)
            start = self._ends[text]
            text += 1


def without_overlap(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in texts sorted, with those that overlap joined."""
    by_text: dict[int, list[tuple[int, int, str, float]]] = {}
    for each in findings:
        by_text.setdefault(each.text, []).append((each.start, each.end, each.rule, each.score))
    return [
        Finding(rule, text, start, end, score)
        for text, matches in sorted(by_text.items())
        for start, end, rule, score in _merged(sorted(matches))
    ]


def _merged(matches: list[tuple[int, int, str, float]]) -> Iterator[tuple[int, int, str, float]]:
    """Yield the matches, which are sorted, with those that overlap joined."""
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
