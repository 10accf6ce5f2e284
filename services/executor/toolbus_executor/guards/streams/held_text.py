"""Redaction of a text that arrives in pieces: a match is found across all borders (no I/O).

The end of the text is delayed, because a match in it could grow: at least `HOLD` characters, and
more if they belong to one word, to a match, or to a block such as a private key. Text that was
already returned stays in the searched window, because rules look at what is before a match.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

HOLD = 256  # characters; a phrase that a rule matches must not be longer, but a word can be
STEP = 64  # minimum of new characters before the text is searched again
_SHARE = 16  # a search also needs a 16th of the delayed text as new characters
CONTEXT = 1024  # characters before the held text that are searched with it
LONGEST_WORD = 8192  # characters without white space that are delayed together
LONGEST_BLOCK = 16_384  # characters of a block that are delayed together
SHORTEST_REPEATED = 6  # shorter values are replaced only where a rule matched
MOST_VALUES = 256
# The beginnings and ends of blocks of many lines that rules match as a whole.
_BLOCKS = (("-----BEGIN", "-----END"),)
_END_OF_BLOCK = 64  # characters of the line that ends a block


class Match(NamedTuple):
    """A match in a text, and what replaces it; None if it stays."""

    start: int
    end: int
    replacement: str | None


class HeldText:
    """A text in pieces, whose matches are replaced. `find` returns the matches in a text."""

    def __init__(self, find: Callable[[str], Iterable[Match]], hold: int = HOLD) -> None:
        self._find = find
        self._hold = hold
        self._window = ""
        self._returned = 0  # characters of the window that were returned
        self._unsearched = 0
        self._values: dict[str, str] = {}  # replaced values

    def feed(self, text: str) -> str:
        """Accept a piece, and return what can be returned now. Raises like `find`."""
        self._window += text
        self._unsearched += len(text)
        held = len(self._window) - self._returned
        # The step grows with the held text, so the total work is linear in the length of the text.
        if self._unsearched < max(STEP, held // _SHARE) or held <= self._hold:
            return ""
        return self._released(self._cut())

    def end(self) -> str:
        """Return the rest of the text. Raises like `find`."""
        return self._released(len(self._window))

    @property
    def size(self) -> int:
        """The characters that are kept."""
        return len(self._window)

    @property
    def unsearched(self) -> str:
        """The rest of the text without a search."""
        return self._window[self._returned :]

    def _cut(self) -> int:
        """Return the end of the text that can be returned, regardless of matches."""
        window = self._window
        cut = len(window) - self._hold
        word = max(window.rfind(space, self._returned, cut + 1) for space in " \n\t\r")
        if cut - word <= LONGEST_WORD:
            cut = max(word + 1, self._returned)
        for begin, end in _BLOCKS:
            opened = window.rfind(begin, self._returned)
            if opened >= 0:
                closed = window.find(end, opened)
                is_open = closed < 0 or closed + _END_OF_BLOCK > len(window)
                if is_open and len(window) - opened <= LONGEST_BLOCK:
                    cut = min(cut, opened)
        return cut

    def _released(self, cut: int) -> str:
        self._unsearched = 0
        matches = self._matches()
        for each in matches:  # sorted: a match that ends after the cut is delayed as a whole
            if each.start < cut < each.end and cut < len(self._window):
                cut = max(each.start, self._returned)
        parts, last = [], self._returned
        for start, end, replacement in matches:
            if end <= last or replacement is None:
                continue
            if start >= cut:
                break
            parts += [self._window[last : max(start, last)], replacement]
            last = end
        parts.append(self._window[last:cut])
        self._forget(max(cut, last))
        return "".join(parts)

    def _matches(self) -> list[Match]:
        """Return the matches and the repeated values, merged where they overlap."""
        found = [*self._find(self._window)]
        for start, end, replacement in found:
            if replacement is not None and end - start >= SHORTEST_REPEATED:
                if len(self._values) >= MOST_VALUES:
                    self._values.pop(next(iter(self._values)))
                self._values[self._window[start:end]] = replacement
        for value, replacement in self._values.items():
            at = self._window.find(value)
            while at >= 0:
                found.append(Match(at, at + len(value), replacement))
                at = self._window.find(value, at + len(value))
        merged: list[Match] = []
        for each in sorted(found, key=lambda match: (match.start, -match.end)):
            if merged and each.start < merged[-1].end:
                before = merged[-1]
                merged[-1] = Match(
                    before.start,
                    max(before.end, each.end),
                    before.replacement if before.replacement is not None else each.replacement,
                )
            else:
                merged.append(each)
        return merged

    def _forget(self, returned: int) -> None:
        """Drop the beginning of the window, up to a white space before the context."""
        self._returned = returned
        start = returned - CONTEXT
        if start <= 0:
            return
        space = self._window.find(" ", start, returned)
        start = space if space >= 0 else start
        self._window, self._returned = self._window[start:], returned - start
