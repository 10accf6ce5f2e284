"""Redaction of known secrets in the output of programs, even if they are encoded or truncated."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from urllib.parse import quote, quote_plus

from toolbus_common.privacy.redaction import STRUCK

PIECE = 8  # consecutive characters of a secret that are redacted wherever they appear
SHORTEST = 4  # shorter values are not redacted, because they would match everywhere
_SHORTEST_ENCODED = 6
_LONGEST = 8192  # searched characters of a value
_Pieces = dict[int, set[str]]


class KnownSecrets:
    """The secret values that Toolbus passed to a program.

    Text is searched for pieces of each value and of its encodings. White space and case are
    ignored. A value is therefore found even if it spans several lines or is printed in part.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._pieces = _pieces_of(values)
        self._renewed: dict[str, list[_Pieces]] = {}  # of the last two values of each name

    def renew(self, name: str, value: str) -> None:
        """Add the current value of a secret that changes. The previous value stays known."""
        self._renewed[name] = [*self._renewed.get(name, [])[-1:], _pieces_of([value])]

    def struck(self, lines: Sequence[str]) -> list[str]:
        """Return consecutive lines with the secrets redacted."""
        if not self._pieces and not self._renewed:
            return list(lines)
        positions = [
            (number, column, char)
            for number, line in enumerate(lines)
            for column, char in enumerate(line)
            if not char.isspace()
        ]
        found: dict[int, set[int]] = {}
        for position in self._found("".join(_folded(char) for _, _, char in positions)):
            number, column, _ = positions[position]
            found.setdefault(number, set()).add(column)
        return [_without(line, found.get(number, set())) for number, line in enumerate(lines)]

    def _found(self, text: str) -> Iterator[int]:
        """Yield the positions of all characters that belong to a secret."""
        for known in (self._pieces, *chain.from_iterable(self._renewed.values())):
            for size, pieces in known.items():
                for start in range(len(text) - size + 1):
                    if text[start : start + size] in pieces:
                        yield from range(start, start + size)


def _pieces_of(values: Iterable[str]) -> _Pieces:
    """Return the pieces of all spellings of the values, by their size."""
    found: _Pieces = {}
    for value in values:
        for spelling in _spellings(value[:_LONGEST]):
            size = min(PIECE, len(spelling))
            starts = range(len(spelling) - size + 1)
            found.setdefault(size, set()).update(spelling[at : at + size] for at in starts)
    return found


def _without(line: str, columns: set[int]) -> str:
    if not columns:
        return line
    covered = [(column in columns, char) for column, char in enumerate(line)]
    parts = []
    for is_secret, chars in groupby(covered, key=itemgetter(0)):
        parts.append(STRUCK if is_secret else "".join(char for _, char in chars))
    return "".join(parts).replace(f"{STRUCK} {STRUCK}", STRUCK)


def _folded(char: str) -> str:
    lower = char.lower()
    return lower if len(lower) == 1 else char


def _spellings(value: str) -> set[str]:
    """Return a value and its usual encodings, in lower case and without white space."""
    raw = value.encode("utf-8", "surrogateescape")
    plain = {value, quote(value), quote(value, safe=""), quote_plus(value)}
    plain |= {json.dumps(value)[1:-1], repr(value)[1:-1]}
    spellings = {each for each in map(_compact, plain) if len(each) >= SHORTEST}
    if len(raw) >= SHORTEST:
        spellings |= {each for each in _encoded(raw) if len(each) >= _SHORTEST_ENCODED}
    return spellings


def _encoded(raw: bytes) -> Iterator[str]:
    """Yield the value in hex, and in Base64 for each position in a longer text."""
    yield raw.hex()
    for before in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            whole = encode(b"\0" * before + raw).decode()
            # The first and last characters also depend on the bytes before and after the value.
            first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
            yield whole[first:last].lower()


def _compact(text: str) -> str:
    return "".join(_folded(char) for char in text if not char.isspace())
