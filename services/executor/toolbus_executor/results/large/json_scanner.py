"""Incremental JSON scanner that extracts large values of a result.

The rest is the same JSON with a placeholder for each large value. The scanner checks only what it
needs. Later decoding of the rest validates it completely. Unknown members stay in the rest.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from toolbus_common.errors import UpstreamInvalidError

MIN_BYTES = 64 << 10  # smaller values are not extracted
LARGEST_REST = 7 << 20
MAX_EXTRACTED = 32  # extracted values of one message


class Kind(Enum):
    """Encoding of an extracted value."""

    TEXT = "text"
    BASE64 = "base64"
    JSON = "json"


Path = tuple[str | None, ...]
_EXTRACTED: dict[Path, Kind] = {
    ("result", "structuredContent"): Kind.JSON,
    ("result", "content", None, "text"): Kind.TEXT,
    ("result", "content", None, "data"): Kind.BASE64,
    ("result", "content", None, "resource", "text"): Kind.TEXT,
    ("result", "content", None, "resource", "blob"): Kind.BASE64,
    ("result", "contents", None, "text"): Kind.TEXT,
    ("result", "contents", None, "blob"): Kind.BASE64,
}
_LEADS = {path[:length] for path in _EXTRACTED for length in range(len(path))}

_PLAIN = re.compile(rb'[^"{}\[\],]*+')
_WHOLE = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
# Matches the part of a string that ends neither within an escape sequence nor within a surrogate
# pair.
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
_MAX_FOLDS = 32
_QUOTE, _COMMA = b'",'
_OPEN, _OBJECT = b"{[", b"{"[0]


class ValueReceiver(Protocol):
    """Receiver of the content of one large value."""

    placeholder: bytes  # raw JSON that replaces the value

    def feed(self, raw: bytes) -> None:
        """Receive a piece of raw JSON.

        The quotes of a string are not included, and no piece ends within an escape sequence.
        """
        ...

    def end(self) -> None:
        """Complete the value."""
        ...


class _Value:
    """A value that is buffered until its size shows whether it is large."""

    def __init__(self, kind: Kind, begin: Callable[[Kind], ValueReceiver | None]) -> None:
        self._kind = kind
        self._begin = begin
        self._buffer = bytearray()
        self._open_receiver: ValueReceiver | None = None

    def feed(self, raw: bytes) -> None:
        if self._open_receiver is None:
            self._buffer += raw
            if len(self._buffer) <= MIN_BYTES:
                return
            self._open_receiver = self._begin(self._kind)
            raw = bytes(self._buffer) if self._open_receiver is not None else b""
        if self._open_receiver is not None:
            self._buffer.clear()
            self._open_receiver.feed(raw)

    def end(self) -> bytes:
        """Return the JSON of the value, or of its placeholder."""
        if self._open_receiver is not None:
            self._open_receiver.end()
            return self._open_receiver.placeholder
        return bytes(self._buffer) if self._kind is Kind.JSON else b'"%b"' % bytes(self._buffer)

    def __len__(self) -> int:
        return len(self._buffer)


class Scanner:
    """Scanner of one message. `begin` returns the receiver for a large value."""

    def __init__(self, begin: Callable[[Kind], ValueReceiver]) -> None:
        self.rest = bytearray()
        self._begin = begin
        self._count = 0
        self._pending = b""
        self._path: list[str | None] = []  # the current key of each open object; None for a list
        self._key = bytearray()
        self._wants_key = False
        self._step: Callable[[bytes, int], int] = self._scan_structure
        self._value: _Value | None = None
        self._depth = 0  # open brackets in a value that is skipped
        self._in_string = False

    def feed(self, piece: bytes) -> None:
        """Scan the next piece. Raises `UpstreamInvalidError`."""
        data, at = self._pending + piece, 0
        while at < len(data):
            after = self._step(data, at)
            if after < 0:
                break
            at = after
        self._pending = data[at:]
        if len(self._pending) > _LONGEST_ESCAPE:
            raise UpstreamInvalidError(
                "The upstream's reply has an invalid escape sequence; fix the server."
            )
        if len(self.rest) + len(self._value or ()) > LARGEST_REST:
            raise UpstreamInvalidError(
                f"The upstream's reply is too large: it has more than {LARGEST_REST} bytes besides "
                f"its first {MAX_EXTRACTED} large values; request less data."
            )

    def _scan_structure(self, data: bytes, at: int) -> int:
        """Scan the text between strings, and return the position of the next text."""
        found = _PLAIN.match(data, at)
        end = found.end() if found is not None else at
        self.rest += data[at:end]
        if end == len(data):
            return end
        if data[end] == _QUOTE:
            return self._take_short(data, end) or self._begin_string(end)
        if data[end] in _OPEN:
            return self._open(data, end)
        self.rest.append(data[end])
        if data[end] == _COMMA:
            self._wants_key = bool(self._path) and self._path[-1] is not None
        elif self._path:
            self._path.pop()
            self._wants_key = False
        return end + 1

    def _take_short(self, data: bytes, at: int) -> int:
        """Read a string that is complete and not large. Return 0 for any other string."""
        found = _WHOLE.match(data, at)
        if found is None or found.end() - at > MIN_BYTES:
            return 0
        self.rest += found[0]
        if self._wants_key:
            self._path[-1] = found[1].decode("utf-8", "replace")
            self._wants_key = False
        return found.end()

    def _open(self, data: bytes, at: int) -> int:
        path = tuple(self._path)
        if path in _LEADS:
            is_object = data[at] == _OBJECT
            self._path.append("" if is_object else None)
            self._wants_key = is_object
            self.rest.append(data[at])
            return at + 1
        kind = _EXTRACTED.get(path)
        self._value = _Value(kind, self._open_receiver) if kind is Kind.JSON else None
        self._step = self._skip_value
        return at

    def _begin_string(self, at: int) -> int:
        if self._wants_key:
            self.rest += b'"'
            self._key.clear()
            self._step = self._scan_key
            return at + 1
        kind = _EXTRACTED.get(tuple(self._path))
        if kind in (Kind.TEXT, Kind.BASE64):
            self._value = _Value(kind, self._open_receiver)
        else:
            self.rest += b'"'
        self._step = self._scan_string
        return at + 1

    def _scan_string(self, data: bytes, at: int) -> int:
        """Scan a string value, or the part of it that has arrived."""
        found = _INSIDE.match(data, at)
        end = found.end() if found is not None else at
        self._put(data[at:end])
        if data[end : end + 1] != b'"':
            return end if end > at else -1
        if self._value is None:
            self.rest += b'"'
        self._end_value()
        return end + 1

    def _scan_key(self, data: bytes, at: int) -> int:
        found = _CHARACTERS.match(data, at)
        end = found.end() if found is not None else at
        self.rest += data[at:end]
        self._key += data[at:end]
        if data[end : end + 1] != b'"':
            return end if end > at else -1
        self.rest += b'"'
        self._path[-1] = self._key.decode("utf-8", "replace")
        self._wants_key = False
        self._step = self._scan_structure
        return end + 1

    def _skip_value(self, data: bytes, at: int) -> int:
        """Skip an object or list up to its closing bracket."""
        piece = data[at:] if at else data
        closed, opened, in_string = _brackets(piece, in_string=self._in_string)
        if closed < self._depth and not piece.endswith(b"\\"):
            self._depth += opened - closed
            self._in_string = in_string
            self._put(piece)
            return len(data)
        return self._skip_exactly(data, at)

    def _skip_exactly(self, data: bytes, at: int) -> int:
        """Skip a value bracket by bracket, up to its closing bracket."""
        if self._in_string:
            found = _CHARACTERS.match(data, at)
            end = found.end() if found is not None else at
            if data[end : end + 1] == b'"':
                end, self._in_string = end + 1, False
            self._put(data[at:end])
            return end if end > at else -1
        end = at
        while True:
            found = _FLAT.match(data, end)
            end = found.end() if found is not None else end
            if end == len(data):
                break
            end += 1
            if data[end - 1] == _QUOTE:  # a string that continues in the next piece
                self._in_string = True
                break
            self._depth += 1 if data[end - 1] in _OPEN else -1
            if self._depth == 0:
                self._put(data[at:end])
                self._end_value()
                return end
        self._put(data[at:end])
        return end

    def _put(self, raw: bytes) -> None:
        if self._value is None:
            self.rest += raw
        else:
            self._value.feed(raw)

    def _end_value(self) -> None:
        if self._value is not None:
            self.rest += self._value.end()
            self._value = None
        self._step = self._scan_structure

    def _open_receiver(self, kind: Kind) -> ValueReceiver | None:
        if self._count == MAX_EXTRACTED:
            return None
        self._count += 1
        return self._begin(kind)


def _brackets(piece: bytes, *, in_string: bool) -> tuple[int, int, bool]:
    """Count the brackets outside strings in a piece, after the removal of adjacent pairs.

    Return the number of closing brackets, the number of opening brackets, and whether the piece
    ends within a string. The removal is much faster than reading each bracket.
    """
    if b"\\" in piece:
        piece = _ESCAPE.sub(b"", piece)
    parts = piece.split(b'"')
    outside = b"".join(parts[1 if in_string else 0 :: 2]).translate(None, _NO_BRACKET)
    for _ in range(_MAX_FOLDS):
        folded = outside.replace(b"{}", b"").replace(b"[]", b"")
        if len(folded) == len(outside):
            break
        outside = folded
    closed = outside.count(b"}") + outside.count(b"]")
    return closed, len(outside) - closed, in_string == (len(parts) % 2 == 1)
