"""An answer of any length read in pieces: what is large in a result goes aside, the rest is kept.

What is left is the same JSON with a mark where something large stood. Nothing is checked that
whoever decodes what is left checks anyway; members this does not recognize count as the rest.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from toolbus_common.errors import UpstreamFaultError

LEAST = 64 << 10  # bytes of a value that goes aside
LARGEST_REST = 7 << 20
MOST_ASIDE = 32  # values of one answer


class Kind(Enum):
    """What a value that goes aside is."""

    TEXT = "text"
    BASE64 = "base64"
    JSON = "json"


Path = tuple[str | None, ...]
_ASIDE: dict[Path, Kind] = {
    ("result", "structuredContent"): Kind.JSON,
    ("result", "content", None, "text"): Kind.TEXT,
    ("result", "content", None, "data"): Kind.BASE64,
    ("result", "content", None, "resource", "text"): Kind.TEXT,
    ("result", "content", None, "resource", "blob"): Kind.BASE64,
    ("result", "contents", None, "text"): Kind.TEXT,
    ("result", "contents", None, "blob"): Kind.BASE64,
}
_LEADS = {path[:length] for path in _ASIDE for length in range(len(path))}

_PLAIN = re.compile(rb'[^"{}\[\],]*+')
_WHOLE = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
# Of a string, all that is whole: an escape is not cut, nor a pair of surrogates.
_INSIDE = re.compile(
    rb'(?:[^"\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[0-9a-fA-F]{4}|(?=[^\\]|\\[^u])))*+",
    re.DOTALL,
)
_LONGEST_ESCAPE = 12
_CHARACTERS = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_FLAT = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NO_BRACKET = bytes(each for each in range(256) if each not in b"{}[]")
_MOST_FOLDS = 32
_QUOTE, _COMMA = b'",'
_OPEN, _OBJECT = b"{[", b"{"[0]


class Aside(Protocol):
    """Where one large value goes."""

    mark: bytes  # raw JSON to stand in its place

    def take(self, raw: bytes) -> None:
        """A piece, as it stands in the JSON; of a string its inside, and no part of an escape."""
        ...

    def end(self) -> None:
        """The value is whole."""
        ...


class _Value:
    """A value that may turn out large: held until it is."""

    def __init__(self, kind: Kind, begin: Callable[[Kind], Aside | None]) -> None:
        self._kind = kind
        self._begin = begin
        self._held = bytearray()
        self._aside: Aside | None = None

    def take(self, raw: bytes) -> None:
        if self._aside is None:
            self._held += raw
            if len(self._held) <= LEAST:
                return
            self._aside = self._begin(self._kind)
            raw = bytes(self._held) if self._aside is not None else b""
        if self._aside is not None:
            self._held.clear()
            self._aside.take(raw)

    def end(self) -> bytes:
        """What stands in the rest for it."""
        if self._aside is not None:
            self._aside.end()
            return self._aside.mark
        return bytes(self._held) if self._kind is Kind.JSON else b'"%b"' % bytes(self._held)

    def __len__(self) -> int:
        return len(self._held)


class Scanner:
    """Reads one answer; `begin` opens the place of a large value."""

    def __init__(self, begin: Callable[[Kind], Aside]) -> None:
        self.rest = bytearray()
        self._begin = begin
        self._count = 0
        self._uncut = b""
        self._path: list[str | None] = []  # the keys of what is open; None in a list
        self._key = bytearray()
        self._wants_key = False
        self._step: Callable[[bytes, int], int] = self._between
        self._value: _Value | None = None
        self._depth = 0  # within a value that is not looked into
        self._in_string = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece. Raises `UpstreamFaultError`."""
        told, at = self._uncut + piece, 0
        while at < len(told):
            after = self._step(told, at)
            if after < 0:
                break
            at = after
        self._uncut = told[at:]
        if len(self._uncut) > _LONGEST_ESCAPE:
            raise UpstreamFaultError("The upstream's answer holds an escape that is none.")
        if len(self.rest) + len(self._value or ()) > LARGEST_REST:
            raise UpstreamFaultError(
                f"The upstream's answer is too large: more than {LARGEST_REST} bytes beside its "
                f"{MOST_ASIDE} longest texts; ask it for less."
            )

    def _between(self, told: bytes, at: int) -> int:
        """What stands between strings: brackets, commas, numbers."""
        found = _PLAIN.match(told, at)
        end = found.end() if found is not None else at
        self.rest += told[at:end]
        if end == len(told):
            return end
        if told[end] == _QUOTE:
            return self._short(told, end) or self._begin_string(end)
        if told[end] in _OPEN:
            return self._open(told, end)
        self.rest.append(told[end])
        if told[end] == _COMMA:
            self._wants_key = bool(self._path) and self._path[-1] is not None
        elif self._path:
            self._path.pop()
            self._wants_key = False
        return end + 1

    def _short(self, told: bytes, at: int) -> int:
        """Take a string that is there as a whole and not large; 0 for any other."""
        found = _WHOLE.match(told, at)
        if found is None or found.end() - at > LEAST:
            return 0
        self.rest += found[0]
        if self._wants_key:
            self._path[-1] = found[1].decode("utf-8", "replace")
            self._wants_key = False
        return found.end()

    def _open(self, told: bytes, at: int) -> int:
        path = tuple(self._path)
        if path in _LEADS:
            is_object = told[at] == _OBJECT
            self._path.append("" if is_object else None)
            self._wants_key = is_object
            self.rest.append(told[at])
            return at + 1
        kind = _ASIDE.get(path)
        self._value = _Value(kind, self._aside) if kind is Kind.JSON else None
        self._step = self._within
        return at

    def _begin_string(self, at: int) -> int:
        if self._wants_key:
            self.rest += b'"'
            self._key.clear()
            self._step = self._in_key
            return at + 1
        kind = _ASIDE.get(tuple(self._path))
        if kind in (Kind.TEXT, Kind.BASE64):
            self._value = _Value(kind, self._aside)
        else:
            self.rest += b'"'
        self._step = self._inside
        return at + 1

    def _inside(self, told: bytes, at: int) -> int:
        """A string that is a value."""
        found = _INSIDE.match(told, at)
        end = found.end() if found is not None else at
        self._put(told[at:end])
        if told[end : end + 1] != b'"':
            return end if end > at else -1
        if self._value is None:
            self.rest += b'"'
        self._end_value()
        return end + 1

    def _in_key(self, told: bytes, at: int) -> int:
        found = _CHARACTERS.match(told, at)
        end = found.end() if found is not None else at
        self.rest += told[at:end]
        self._key += told[at:end]
        if told[end : end + 1] != b'"':
            return end if end > at else -1
        self.rest += b'"'
        self._path[-1] = self._key.decode("utf-8", "replace")
        self._wants_key = False
        self._step = self._between
        return end + 1

    def _within(self, told: bytes, at: int) -> int:
        """An object or a list that is not looked into: up to the bracket that ends it."""
        piece = told[at:] if at else told
        closed, opened, in_string = _crossed(piece, in_string=self._in_string)
        if closed < self._depth and not piece.endswith(b"\\"):
            self._depth += opened - closed
            self._in_string = in_string
            self._put(piece)
            return len(told)
        return self._within_exactly(told, at)

    def _within_exactly(self, told: bytes, at: int) -> int:
        """The same bracket by bracket."""
        if self._in_string:
            found = _CHARACTERS.match(told, at)
            end = found.end() if found is not None else at
            if told[end : end + 1] == b'"':
                end, self._in_string = end + 1, False
            self._put(told[at:end])
            return end if end > at else -1
        end = at
        while True:
            found = _FLAT.match(told, end)
            end = found.end() if found is not None else end
            if end == len(told):
                break
            end += 1
            if told[end - 1] == _QUOTE:  # a string whose end has not come
                self._in_string = True
                break
            self._depth += 1 if told[end - 1] in _OPEN else -1
            if self._depth == 0:
                self._put(told[at:end])
                self._end_value()
                return end
        self._put(told[at:end])
        return end

    def _put(self, raw: bytes) -> None:
        if self._value is None:
            self.rest += raw
        else:
            self._value.take(raw)

    def _end_value(self) -> None:
        if self._value is not None:
            self.rest += self._value.end()
            self._value = None
        self._step = self._between

    def _aside(self, kind: Kind) -> Aside | None:
        if self._count == MOST_ASIDE:
            return None
        self._count += 1
        return self._begin(kind)


def _crossed(piece: bytes, *, in_string: bool) -> tuple[int, int, bool]:
    """How many brackets a piece closes at most and opens at least, and whether it ends in a string.

    Much faster than to look at each bracket: pairs are folded away.
    """
    if b"\\" in piece:
        piece = _ESCAPE.sub(b"", piece)
    parts = piece.split(b'"')
    outside = b"".join(parts[1 if in_string else 0 :: 2]).translate(None, _NO_BRACKET)
    for _ in range(_MOST_FOLDS):
        folded = outside.replace(b"{}", b"").replace(b"[]", b"")
        if len(folded) == len(outside):
            break
        outside = folded
    closed = outside.count(b"}") + outside.count(b"]")
    return closed, len(outside) - closed, in_string == (len(parts) % 2 == 1)
