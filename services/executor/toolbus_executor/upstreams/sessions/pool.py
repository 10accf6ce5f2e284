"""Pool of one server's sessions. They are opened on demand, and closed when idle or evicted."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic, time
from typing import Any, Generic, Protocol, TypeVar

from toolbus_common.concurrency import Tasks, end
from toolbus_common.config import Server
from toolbus_common.errors import (
    OverloadedError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_executor.upstreams.sessions.owners import Owner

log = logging.getLogger(__name__)

BEGIN_SECONDS = 30.0  # timeout of opening a session, after other processes have started
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0  # seconds before a failed session is reopened
MAX_SHOWN = 200
MAX_REMEMBERED = 1024  # sessions that failed recently
MIN_CHECK_SECONDS = 0.05


class Kept(Protocol):
    """The connection of a session."""

    @property
    def in_use(self) -> bool:
        """Whether the owner needs the connection although no call is in progress."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


K = TypeVar("K", bound=Kept)
Begin = Callable[[], Awaitable[K]]


@dataclass(eq=False, slots=True)
class Session(Generic[K]):
    """A session. `kept` is its connection, set while the session is open."""

    key: Hashable
    owner: Owner
    kept: K | None = None
    in_progress: int = 0
    beginning: asyncio.Task[None] | None = None
    began_at: float = field(default_factory=time)
    used_at: float = field(default_factory=time)
    used: float = field(default_factory=monotonic)

    @property
    def busy(self) -> bool:
        """Whether closing the session would interrupt its owner."""
        beginning = self.beginning is not None and not self.beginning.done()
        return self.in_progress > 0 or beginning or (self.kept is not None and self.kept.in_use)


class Pool(Generic[K]):
    """The sessions of one server in this executor, in the order of their last use.

    A busy session is never closed to open another session. A principal has at most half of the
    pool, and at most `max_sessions_per_principal` sessions. At this limit, an idle session of the
    same principal is closed, never a session of another principal.
    """

    def __init__(self, server: str, declared: Server) -> None:
        self.server = server
        self.bound = declared.session_bound
        self.each = min(declared.max_sessions_per_principal, max(1, self.bound // 2))
        self.on_left: Callable[[Owner], None] = lambda _owner: None
        self._idle = declared.idle
        self._sessions: OrderedDict[Hashable, Session[K]] = OrderedDict()
        self._failed: OrderedDict[Hashable, int] = OrderedDict()  # consecutive failures
        self._closing = Tasks()
        self._timer: asyncio.TimerHandle | None = None
        self._is_shut_down = False

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Any:
        return iter(tuple(self._sessions.values()))

    @property
    def names(self) -> list[str]:
        """The ids of the owners with sessions in use. The server must stay running for them."""
        every = self._sessions.values()
        return [each.owner.id for each in every if each.kept is not None and each.kept.in_use]

    def has(self, owner_id: str) -> bool:
        """Return whether this owner has a session."""
        return any(each.owner.id == owner_id for each in self._sessions.values())

    def kept(self, key: Hashable) -> K | None:
        """Return the connection of the session with this key; None if it is not open."""
        session = self._sessions.get(key)
        return session.kept if session is not None else None

    def end_of_client(self, session_id: str) -> None:
        """Close the sessions that belong to a client session that has ended."""
        for session in tuple(self._sessions.values()):
            if session.owner.session == session_id:
                self._remove(session)

    @asynccontextmanager
    async def lent(
        self, key: Hashable, owner: Owner, begin: Begin[K], seconds: float
    ) -> AsyncIterator[K]:
        """Yield the connection of the session with this key for a call. The first call opens it.

        Raises:
            OverloadedError: the pool is full, and all sessions are busy.
            UpstreamTimeoutError: the session did not open within `seconds`.
            ToolbusError: the session cannot be opened. Nothing of the call was sent.

        """
        session = self._sessions.get(key) or self._admit(key, owner)
        session.in_progress += 1
        try:
            if session.kept is None:
                await self._opened(session, begin, seconds)
            assert session.kept is not None  # noqa: S101 - open, or an error was raised
            yield session.kept
            self._failed.pop(key, None)
        finally:
            session.in_progress -= 1
            self._used(session)

    def drop(self, kept: K, begin: Begin[K] | None = None) -> None:
        """Remove a session whose connection is lost. If `begin` is set, reopen it instead."""
        session = next((each for each in self._sessions.values() if each.kept is kept), None)
        if session is None:
            return
        self._note_failure(session.key)
        if begin is None:
            self._remove(session)
            return
        session.kept = None
        self._close_later(kept.close())
        self._begin_later(session, begin)

    def end_of(self, owner_id: str) -> None:
        """Close the sessions of an owner."""
        for session in tuple(self._sessions.values()):
            if session.owner.id == owner_id:
                self._remove(session)

    async def shut_down(self) -> None:
        """Close all sessions. No further session can be opened."""
        self._is_shut_down = True
        await self.close(lambda _key: True)

    async def close(self, mine: Callable[[Hashable], bool]) -> None:
        """Close all sessions with a key for which `mine` returns true."""
        for session in tuple(self._sessions.values()):
            if mine(session.key):
                self._remove(session)
        if self._timer is not None and not self._sessions:
            self._timer.cancel()
            self._timer = None
        await self._closing.finish()

    def status(self) -> dict[str, Any]:
        """Return the state of the pool for `toolbus status`, with the last used sessions."""
        return {
            "limit": self.bound,
            "limit_per_principal": self.each,
            "open": len(self._sessions),
            "sessions": [
                {
                    "owner": each.owner.label,
                    "client": each.owner.session[:8],
                    "opened_at": each.began_at,
                    "used_at": each.used_at,
                    "in_flight": each.in_progress,
                }
                for each in islice(reversed(self._sessions.values()), MAX_SHOWN)
            ],
        }

    # -- opening -----------------------------------------------------------------------------

    async def _opened(self, session: Session[K], begin: Begin[K], seconds: float) -> None:
        """Wait until the session is open. A timeout of one call does not cancel the opening."""
        if session.beginning is None or session.beginning.done():
            self._begin_later(session, begin)
        assert session.beginning is not None  # noqa: S101 - by now it is
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(session.beginning)
        except TimeoutError as error:
            raise UpstreamTimeoutError(
                f"The caller's session at {self.server} did not open in {seconds:.3g} s; retry.",
                sent=False,
            ) from error

    def _begin_later(self, session: Session[K], begin: Begin[K]) -> None:
        session.beginning = asyncio.create_task(self._begin(session, begin))
        session.beginning.add_done_callback(looked_at)
        session.beginning.add_done_callback(lambda _: self._used(session))

    async def _begin(self, session: Session[K], begin: Begin[K]) -> None:
        failures = self._failed.get(session.key, 0)
        if failures > 1:
            await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 2, 10)))
        try:
            kept = await begin()
        except TimeoutError as error:
            self._note_failure(session.key)
            raise UpstreamDeadError(
                f"A session at {self.server} did not open within {BEGIN_SECONDS:g} s; retry.",
                sent=False,
            ) from error
        except ToolbusError as error:
            self._note_failure(session.key)
            error.data["sent"] = False  # nothing of the call was sent
            raise
        if self._sessions.get(session.key) is not session:
            await kept.close()
            raise UpstreamDeadError(
                f"{self.server} was closed while it was connecting; retry.", sent=False
            )
        session.kept = kept
        self._check_later()

    def _note_failure(self, key: Hashable) -> None:
        self._failed[key] = self._failed.get(key, 0) + 1
        self._failed.move_to_end(key)
        if len(self._failed) > MAX_REMEMBERED:
            self._failed.popitem(last=False)

    # -- admission ---------------------------------------------------------------------------

    def _admit(self, key: Hashable, owner: Owner) -> Session[K]:
        if self._is_shut_down:
            raise UpstreamDeadError(f"{self.server} was stopped; retry.", sent=False)
        sessions = tuple(self._sessions.values())
        own = [each for each in sessions if each.owner.quota == owner.quota]
        if len(own) >= self.each:
            self._close_idle(own, "max_sessions_per_principal", self.each)
        elif len(sessions) >= self.bound:
            self._close_idle(list(sessions), "max_sessions", self.bound)
        session = self._sessions[key] = Session[K](key, owner)
        return session

    def _close_idle(self, among: list[Session[K]], setting: str, bound: int) -> None:
        """Close the session that was idle longest. Raises `OverloadedError` if all are busy."""
        idle = next((each for each in among if not each.busy), None)
        if idle is not None:
            self._remove(idle)
            return
        whose = "for this caller " if setting == "max_sessions_per_principal" else ""
        raise OverloadedError(
            f"{self.server} has {len(among)} sessions open {whose}and all are in use. Retry "
            f"shortly, raise servers.{self.server}.{setting} (now {bound}), or set "
            f"servers.{self.server}.sessions to shared if the server keeps no state.",
            sent=False,
            retry_after=1,
        )

    # -- closing -----------------------------------------------------------------------------

    def _used(self, session: Session[K]) -> None:
        session.used, session.used_at = monotonic(), time()
        if self._sessions.get(session.key) is not session:
            return
        if session.kept is None and not session.busy:
            self._remove(session)
            return
        self._sessions.move_to_end(session.key)

    def _remove(self, session: Session[K]) -> None:
        del self._sessions[session.key]
        self._close_later(self._end(session))
        if not self.has(session.owner.id):
            self.on_left(session.owner)

    def _close_later(self, work: Coroutine[Any, Any, None]) -> None:
        self._closing.start(work).add_done_callback(looked_at)

    async def _end(self, session: Session[K]) -> None:
        if session.beginning is not None:
            await end(session.beginning)
        if session.kept is not None:
            await session.kept.close()

    def _check_later(self) -> None:
        """Schedule the next check for idle sessions, if none is scheduled."""
        if self._timer is not None or not self._idle or not self._sessions:
            return
        first = min(each.used for each in self._sessions.values())
        seconds = max(MIN_CHECK_SECONDS, first + self._idle - monotonic())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end_idle)

    def _end_idle(self) -> None:
        self._timer = None
        now = monotonic()
        for session in tuple(self._sessions.values()):
            if session.busy:
                session.used = now
            elif now - session.used >= self._idle:
                log.info("session.idle", extra={"server": self.server})
                self._remove(session)
        self._check_later()


def looked_at(task: "asyncio.Future[None]") -> None:
    """Log why a session could not be opened. The waiting calls get the same error."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("session.open_failed", extra={"reason": str(error)})
