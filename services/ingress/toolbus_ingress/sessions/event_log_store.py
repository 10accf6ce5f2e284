"""The event logs of sessions, found by name for resumption, limited per principal and in total."""

import asyncio
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from toolbus_ingress.sessions.event_log import LARGEST, EventLog
from toolbus_ingress.sessions.session_store import Session

KEEP_SECONDS = 300.0  # seconds for which a log without a reader is stored
MAX_LOGS = 4000
MAX_BYTES = 128 * 1024 * 1024
MAX_LOGS_PER_PRINCIPAL = 64
MAX_BYTES_PER_PRINCIPAL = 16 * 1024 * 1024
ANSWER_STREAM, SESSION_STREAM = "a", "s"
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """A client's position in a stream, from an event id: `<kind><replica>.<count>-<number>`.

    An event id is not a credential: a stream is looked up only in the session of the request.
    """

    stream: str
    number: int

    @property
    def is_session_stream(self) -> bool:
        """Whether the stream is a session's own stream, not the stream of one answer."""
        return self.stream.startswith(SESSION_STREAM)

    @property
    def replica(self) -> str:
        """The id of the replica that has the stream."""
        return self.stream[1:].partition(".")[0]


def parse_event_id(event_id: bytes) -> StreamPosition | None:
    """Parse an event id of this gateway; return None for text in any other form."""
    stream, _, number = event_id[: _LONGEST_ID + 1].decode("latin-1").rpartition("-")
    replica, _, count = stream[1:].partition(".")
    valid = (
        len(event_id) <= _LONGEST_ID
        and stream[:1] in (ANSWER_STREAM, SESSION_STREAM)
        and all(part.isascii() and part.isalnum() for part in (replica, count))
        and number.isascii()
        and number.isdigit()
    )
    return StreamPosition(stream, int(number)) if valid else None


@dataclass(slots=True)
class _StoredLog:
    sid: str
    principal_id: str
    event_log: EventLog
    expiry: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Usage:
    """The bytes and the names of one principal's logs."""

    size: int = 0
    names: OrderedDict[str, None] = field(default_factory=OrderedDict)


class EventLogStore:
    """The event logs of this replica's sessions.

    Above a limit, the oldest log without a reader is evicted.

    `poll_after` is the number of seconds after which a client that waits for an answer is
    disconnected, so that it resumes later; 0 means never.
    """

    def __init__(self, poll_after: float = 0.0) -> None:
        self.poll_after = poll_after
        self.replica = secrets.token_hex(6)
        self._count = itertools.count(1)
        self._logs: OrderedDict[str, _StoredLog] = OrderedDict()
        self._usage: dict[str, _Usage] = {}
        self._of_session: dict[str, set[str]] = {}  # the names of each session's logs
        self._size = 0

    def __len__(self) -> int:
        return len(self._logs)

    def open(
        self, session: Session | None, kind: str, maximum: int, bound: int = LARGEST
    ) -> EventLog:
        """Create a log. The log is stored if the session's protocol revision has event ids."""
        if session is None or not session.resumable:
            return EventLog(maximum=maximum, bound=bound)
        event_log = EventLog(f"{kind}{self.replica}.{next(self._count):x}", maximum, bound)
        claims = session.claims
        stored = _StoredLog(claims.sid, claims.principal_id, event_log)
        self._logs[event_log.name] = stored
        usage = self._usage.setdefault(claims.principal_id, _Usage())
        usage.names[event_log.name] = None
        self._of_session.setdefault(claims.sid, set()).add(event_log.name)
        event_log.on_grown = lambda size: self._grow(stored, size)
        event_log.on_read = lambda: self._cancel_expiry(stored)
        event_log.on_left = lambda: self._expire(stored)
        self._grow(stored, 0)
        return event_log

    def find(self, sid: str, stream: str) -> EventLog | None:
        """Return a log of this session; None if this session has no log of that name."""
        stored = self._logs.get(stream)
        return stored.event_log if stored is not None and stored.sid == sid else None

    def remove_session(self, sid: str) -> None:
        """Remove the logs of a session that ended; current readers may finish."""
        for name in tuple(self._of_session.get(sid, ())):
            self._remove(self._logs[name])

    def close(self) -> None:
        """Remove every log."""
        for stored in tuple(self._logs.values()):
            self._remove(stored)

    def _cancel_expiry(self, stored: _StoredLog) -> None:
        if stored.expiry is not None:
            stored.expiry.cancel()
            stored.expiry = None

    def _expire(self, stored: _StoredLog) -> None:
        self._cancel_expiry(stored)
        if stored.event_log.name in self._logs:
            loop = asyncio.get_running_loop()
            stored.expiry = loop.call_later(KEEP_SECONDS, self._remove, stored)

    def _grow(self, stored: _StoredLog, size: int) -> None:
        usage = self._usage[stored.principal_id]
        usage.size += size
        self._size += size
        while usage.size > MAX_BYTES_PER_PRINCIPAL or len(usage.names) > MAX_LOGS_PER_PRINCIPAL:
            if not self._evict((self._logs[name] for name in usage.names), stored):
                break
        while self._size > MAX_BYTES or len(self._logs) > MAX_LOGS:
            if not self._evict(self._logs.values(), stored):
                break

    def _evict(self, candidates: Iterable[_StoredLog], growing: _StoredLog) -> bool:
        """Remove the oldest log without a reader, else the oldest log.

        Return False if `growing` is the only log.
        """
        oldest = None
        for stored in candidates:
            if stored is not growing:
                oldest = oldest or stored
                if stored.event_log.reader is None:
                    oldest = stored
                    break
        if oldest is not None:
            self._remove(oldest)
        return oldest is not None

    def _remove(self, stored: _StoredLog) -> None:
        event_log = stored.event_log
        if self._logs.pop(event_log.name, None) is None:
            return
        self._cancel_expiry(stored)
        usage = self._usage[stored.principal_id]
        usage.size -= event_log.size
        self._size -= event_log.size
        names = self._of_session[stored.sid]
        names.discard(event_log.name)
        if not names:
            del self._of_session[stored.sid]
        del usage.names[event_log.name]
        if not usage.names:
            del self._usage[stored.principal_id]
        event_log.release()
