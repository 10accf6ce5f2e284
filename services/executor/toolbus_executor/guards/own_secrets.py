"""The secrets that Toolbus itself holds, found in texts wherever they occur (no I/O)."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from secrets import token_bytes
from threading import Lock
from typing import Any
from urllib.parse import quote, quote_plus

import ahocorasick

from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.joined_texts import JoinedTexts
from toolbus_common.guards.texts.time_limit import check_time

RULE = "toolbus-own-secret"
SHORTEST = 8  # shorter values are not searched, because they would match everywhere
_LONGEST = 8192  # characters of a value
_PIECE = 12  # characters from the middle of a spelling, by which it is found
_Spellings = dict[int, frozenset[str]]  # spellings, by their length


class OwnSecrets:
    """Secret values, found by their exact text or one of its usual encodings.

    The encodings are those of JSON, URLs, Base64 and hexadecimal digits. Values can be replaced
    while other threads search. Searching is linear in the text, however many values there are.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        """Search for these values."""
        self._key = token_bytes(32)
        self._lock = Lock()
        self._index = _Index(values, self._key)

    @property
    def version(self) -> str:
        """An identifier of the set of values, for this object only. It reveals no value."""
        return self._index.version

    @property
    def longest(self) -> int:
        """The number of characters of the longest spelling of a value."""
        return self._index.longest

    def replace(self, values: Iterable[str]) -> None:
        """Search for these values only, from now on."""
        with self._lock:
            self._index = _Index(values, self._key)

    def add(self, value: str) -> None:
        """Search for this value too, from now on."""
        with self._lock:
            self._index = _Index([*self._index.values, value], self._key)

    def find(self, texts: Sequence[str]) -> list[Finding]:
        """Return where the values are in the texts of one document."""
        index = self._index
        if index.automaton is None:
            return []
        joined = JoinedTexts(texts)
        return joined.findings((start, end, RULE, 1.0) for start, end in index.matches(joined.text))

    def __repr__(self) -> str:
        return f"OwnSecrets({len(self._index.values)} values)"


class _Index:
    """An automaton of the pieces of all spellings; never changed."""

    def __init__(self, values: Iterable[str], key: bytes) -> None:
        self.values = frozenset(value for value in values if len(value) >= SHORTEST)
        digests = sorted(
            blake2b(each.encode("utf-8", "replace"), key=key).digest() for each in self.values
        )
        self.version = f"own-{blake2b(b''.join(digests), digest_size=6).hexdigest()}"
        self.automaton: Any = None
        self.longest = 0
        pieces: dict[str, dict[int, set[str]]] = {}
        for value in self.values:
            for spelling in _spellings(value[:_LONGEST]):
                self.longest = max(self.longest, len(spelling))
                first = _before(len(spelling))
                lengths = pieces.setdefault(spelling[first : first + _PIECE], {})
                lengths.setdefault(len(spelling), set()).add(spelling)
        if pieces:
            self.automaton = ahocorasick.Automaton()
            for piece, lengths in pieces.items():
                self.automaton.add_word(piece, (len(piece), lengths))
            self.automaton.make_automaton()

    def matches(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each spelling in a text."""
        for last, (size, lengths) in self.automaton.iter(text):
            check_time()
            for length, spellings in lengths.items():
                start = last + 1 - size - _before(length)
                if start >= 0 and text[start : start + length] in spellings:
                    yield start, start + length


def _before(length: int) -> int:
    """Return the number of characters of a spelling before its piece."""
    return max(0, (length - _PIECE) // 2)


def _spellings(value: str) -> set[str]:
    """Return the value and its usual encodings."""
    raw = value.encode("utf-8", "surrogatepass")
    spellings = {value, quote(raw), quote(raw, safe=""), quote_plus(raw)}
    spellings |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    spellings |= {raw.hex(), raw.hex().upper()}
    for before in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            whole = encode(b"\0" * before + raw).decode()
            # The first and last characters also depend on the bytes before and after the value.
            first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
            spellings.add(whole[first:last])
    return spellings
