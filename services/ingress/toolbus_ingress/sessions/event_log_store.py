"""The streams of sessions that somebody may come back for: found by name, bounded in every way."""

import asyncio
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from toolbus_ingress.sessions.event_log import LARGEST, Journal
from toolbus_ingress.sessions.session_store import Session

KEEP_SECONDS = 300.0  # for a stream nobody reads
MOST_KEPT = 4000
MOST_BYTES = 128 * 1024 * 1024
MOST_KEPT_EACH = 64  # of one principal
MOST_BYTES_EACH = 16 * 1024 * 1024
ANSWER, STANDING = "a", "s"
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client was in a stream, as an event's id says it: `<kind><replica>.<count>-<number>`.

    It is no secret and proves nothing: streams are looked for in the session of the request only.
    """

    stream: str
    number: int

    @property
    def standing(self) -> bool:
        """Whether this is a session's own stream, not that of an answer."""
        return self.stream.startswith(STANDING)

    @property
    def replica(self) -> str:
        """Which replica holds it."""
        return self.stream[1:].partition(".")[0]


def place_of(event_id: bytes) -> Place | None:
    """What an event's id says; None when it is none of ours."""
    stream, _, number = event_id[: _LONGEST_ID + 1].decode("latin-1").rpartition("-")
    replica, _, count = stream[1:].partition(".")
    ours = (
        len(event_id) <= _LONGEST_ID
        and stream[:1] in (ANSWER, STANDING)
        and all(part.isascii() and part.isalnum() for part in (replica, count))
        and number.isascii()
        and number.isdigit()
    )
    return Place(stream, int(number)) if ours else None


@dataclass(slots=True)
class _Kept:
    sid: str
    principal_id: str
    journal: Journal
    expiry: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Holding:
    """What one principal's streams take."""

    size: int = 0
    names: OrderedDict[str, None] = field(default_factory=OrderedDict)


class Shelf:
    """Journals of this replica's sessions; of too many the oldest that nobody reads goes first.

    `poll_after`: seconds a connection waits for an answer before its client is sent away to come
    back for it; 0: as long as it takes.
    """

    def __init__(self, poll_after: float = 0.0) -> None:
        self.poll_after = poll_after
        self.replica = secrets.token_hex(6)
        self._count = itertools.count(1)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._holdings: dict[str, _Holding] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, session: Session | None, kind: str, most: int, bound: int = LARGEST) -> Journal:
        """A new journal; it is kept where the session's revision has events with ids."""
        if session is None or not session.resumable:
            return Journal(most=most, bound=bound)
        journal = Journal(f"{kind}{self.replica}.{next(self._count):x}", most, bound)
        claims = session.claims
        kept = self._kept[journal.name] = _Kept(claims.sid, claims.principal_id, journal)
        holding = self._holdings.setdefault(claims.principal_id, _Holding())
        holding.names[journal.name] = None
        journal.on_grown = lambda more: self._grow(kept, more)
        journal.on_read = lambda: self._hold(kept)
        journal.on_left = lambda: self._expire(kept)
        self._grow(kept, 0)
        return journal

    def find(self, sid: str, stream: str) -> Journal | None:
        """A stream of a session; in no other session it exists."""
        kept = self._kept.get(stream)
        return kept.journal if kept is not None and kept.sid == sid else None

    def leave(self, sid: str) -> None:
        """Forget the streams of a session that has ended, once what is read is read."""
        for kept in [kept for kept in self._kept.values() if kept.sid == sid]:
            self._remove(kept)

    def close(self) -> None:
        """Forget everything."""
        for kept in tuple(self._kept.values()):
            self._remove(kept)

    def _hold(self, kept: _Kept) -> None:
        if kept.expiry is not None:
            kept.expiry.cancel()
            kept.expiry = None

    def _expire(self, kept: _Kept) -> None:
        self._hold(kept)
        if kept.journal.name in self._kept:
            loop = asyncio.get_running_loop()
            kept.expiry = loop.call_later(KEEP_SECONDS, self._remove, kept)

    def _grow(self, kept: _Kept, more: int) -> None:
        holding = self._holdings[kept.principal_id]
        holding.size += more
        self._size += more
        while holding.size > MOST_BYTES_EACH or len(holding.names) > MOST_KEPT_EACH:
            if not self._make_room((self._kept[name] for name in holding.names), kept):
                break
        while self._size > MOST_BYTES or len(self._kept) > MOST_KEPT:
            if not self._make_room(self._kept.values(), kept):
                break

    def _make_room(self, among: Iterable[_Kept], growing: _Kept) -> bool:
        """Forget the oldest that nobody reads, else the oldest; whether there was another."""
        oldest = None
        for kept in among:
            if kept is not growing:
                oldest = oldest or kept
                if kept.journal.reader is None:
                    oldest = kept
                    break
        if oldest is not None:
            self._remove(oldest)
        return oldest is not None

    def _remove(self, kept: _Kept) -> None:
        journal = kept.journal
        if self._kept.pop(journal.name, None) is None:
            return
        self._hold(kept)
        holding = self._holdings[kept.principal_id]
        holding.size -= journal.size
        self._size -= journal.size
        del holding.names[journal.name]
        if not holding.names:
            del self._holdings[kept.principal_id]
        journal.let_go()
