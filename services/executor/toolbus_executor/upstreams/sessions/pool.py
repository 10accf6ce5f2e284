"""A bounded pool of one server's sessions: begun on demand, ended when idle or in the way."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic, time
from typing import Any, Generic, Protocol, TypeVar

from toolbus_common.concurrency import end
from toolbus_common.config import Server
from toolbus_common.errors import (
    OverloadedError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_executor.upstreams.sessions.owners import Owner

log = logging.getLogger(__name__)

BEGIN_SECONDS = 30.0  # from when a session has its turn among processes that start
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0  # before a session is begun again that failed
MOST_TOLD = 200
MOST_REMEMBERED = 1024  # sessions that failed lately
LEAST_LOOK_SECONDS = 0.05


class Kept(Protocol):
    """What a pool keeps."""

    @property
    def in_use(self) -> bool:
        """Whether somebody relies on it although no call is under way."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


K = TypeVar("K", bound=Kept)
Begin = Callable[[], Awaitable[K]]


@dataclass(eq=False, slots=True)
class Session(Generic[K]):
    """One session; `kept` is there once it has begun."""

    key: Hashable
    owner: Owner
    kept: K | None = None
    under_way: int = 0
    beginning: asyncio.Task[None] | None = None
    began_at: float = field(default_factory=time)
    used_at: float = field(default_factory=time)
    used: float = field(default_factory=monotonic)

    @property
    def busy(self) -> bool:
        """Whether ending it would take something from its owner that is in use."""
        beginning = self.beginning is not None and not self.beginning.done()
        return self.under_way > 0 or beginning or (self.kept is not None and self.kept.in_use)


class Pool(Generic[K]):
    """The sessions of one server in this executor, the longest unused first.

    A busy session is never ended for another one. A principal has at most half of all places and
    `most_sessions_each`; at its own bound its own idle sessions make room, not those of others.
    """

    def __init__(self, server: str, declared: Server) -> None:
        self.server = server
        self.bound = declared.session_bound
        self.each = min(declared.most_sessions_each, max(1, self.bound // 2))
        self.on_left: Callable[[Owner], None] = lambda _owner: None
        self._idle = declared.idle
        self._sessions: OrderedDict[Hashable, Session[K]] = OrderedDict()
        self._failed: OrderedDict[Hashable, int] = OrderedDict()  # how often in a row
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Any:
        return iter(tuple(self._sessions.values()))

    @property
    def names(self) -> list[str]:
        """The owners that rely on a session, so that the server must not sleep."""
        every = self._sessions.values()
        return [each.owner.id for each in every if each.kept is not None and each.kept.in_use]

    def has(self, owner_id: str) -> bool:
        """Whether there is a session of this owner."""
        return any(each.owner.id == owner_id for each in self._sessions.values())

    def kept(self, key: Hashable) -> K | None:
        """Return the session of this key, if it has begun."""
        session = self._sessions.get(key)
        return session.kept if session is not None else None

    def end_of_client(self, session_id: str) -> None:
        """End the sessions of a client session that has ended."""
        for session in tuple(self._sessions.values()):
            if session.owner.session == session_id:
                self._remove(session)

    @asynccontextmanager
    async def lent(
        self, key: Hashable, owner: Owner, begin: Begin[K], seconds: float
    ) -> AsyncIterator[K]:
        """Lend the session of this key, begun by the first who wants it.

        Raises:
            OverloadedError: there is no room for it.
            UpstreamTimeoutError: it did not begin within `seconds`.
            ToolbusError: it cannot begin; nothing of the call was sent.

        """
        session = self._sessions.get(key) or self._admit(key, owner)
        session.under_way += 1
        try:
            if session.kept is None:
                await self._begun(session, begin, seconds)
            assert session.kept is not None  # noqa: S101 - begun, or it was raised
            yield session.kept
            self._failed.pop(key, None)
        finally:
            session.under_way -= 1
            self._used(session)

    def drop(self, kept: K, begin: Begin[K] | None = None) -> None:
        """Forget a session that ended by itself; with `begin` it is begun again at once."""
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
        """End the sessions of an owner."""
        for session in tuple(self._sessions.values()):
            if session.owner.id == owner_id:
                self._remove(session)

    async def close(self, mine: Callable[[Hashable], bool] = lambda _key: True) -> None:
        """End all sessions whose keys are meant."""
        for session in tuple(self._sessions.values()):
            if mine(session.key):
                self._remove(session)
        if self._timer is not None and not self._sessions:
            self._timer.cancel()
            self._timer = None
        if self._closing:
            await asyncio.wait(self._closing)

    def told(self) -> dict[str, Any]:
        """Say who holds what, for `toolbus status`: of very many those that were used last."""
        return {
            "bound": self.bound,
            "each": self.each,
            "open": len(self._sessions),
            "held": [
                {
                    "owner": each.owner.label,
                    "client": each.owner.session[:8],
                    "since": each.began_at,
                    "used": each.used_at,
                    "in_flight": each.under_way,
                }
                for each in islice(reversed(self._sessions.values()), MOST_TOLD)
            ],
        }

    # -- beginning ---------------------------------------------------------------------------

    async def _begun(self, session: Session[K], begin: Begin[K], seconds: float) -> None:
        """Wait until a session has begun; one caller's haste does not stop what others wait for."""
        if session.beginning is None or session.beginning.done():
            self._begin_later(session, begin)
        assert session.beginning is not None  # noqa: S101 - by now it is
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(session.beginning)
        except TimeoutError as error:
            raise UpstreamTimeoutError(
                f"A session of the caller's own at {self.server} did not begin within "
                f"{seconds:.3g} s; retry.",
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
                f"A session at {self.server} did not begin within {BEGIN_SECONDS:g} s.", sent=False
            ) from error
        except ToolbusError as error:
            self._note_failure(session.key)
            error.data["sent"] = False  # nothing of the call itself
            raise
        if self._sessions.get(session.key) is not session:
            await kept.close()
            raise UpstreamDeadError(f"{self.server} was left while it was reached.", sent=False)
        session.kept = kept
        self._look_later()

    def _note_failure(self, key: Hashable) -> None:
        self._failed[key] = self._failed.get(key, 0) + 1
        self._failed.move_to_end(key)
        if len(self._failed) > MOST_REMEMBERED:
            self._failed.popitem(last=False)

    # -- service --------------------------------------------------------------------------------

    def _admit(self, key: Hashable, owner: Owner) -> Session[K]:
        sessions = tuple(self._sessions.values())
        own = [each for each in sessions if each.owner.quota == owner.quota]
        if len(own) >= self.each:
            self._make_room(own, "most_sessions_each", self.each)
        elif len(sessions) >= self.bound:
            self._make_room(list(sessions), "most_sessions", self.bound)
        session = self._sessions[key] = Session[K](key, owner)
        return session

    def _make_room(self, among: list[Session[K]], line: str, bound: int) -> None:
        """End the longest unused session. Raises `OverloadedError` where all are busy."""
        idle = next((each for each in among if not each.busy), None)
        if idle is not None:
            self._remove(idle)
            return
        whose = "this caller's" if line == "most_sessions_each" else "all"
        raise OverloadedError(
            f"{self.server} has {len(among)} sessions open, {whose} places taken, and each is in "
            f"use. Retry shortly; or raise servers.{self.server}.{line} (now {bound}), or declare "
            f"servers.{self.server}.sessions: shared if the server keeps no state.",
            sent=False,
            retry_after=1,
        )

    # -- ending ------------------------------------------------------------------------------

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
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        task.add_done_callback(looked_at)

    async def _end(self, session: Session[K]) -> None:
        if session.beginning is not None:
            await end(session.beginning)
        if session.kept is not None:
            await session.kept.close()

    def _look_later(self) -> None:
        """Look again when the next session may have been idle for too long."""
        if self._timer is not None or not self._idle or not self._sessions:
            return
        first = min(each.used for each in self._sessions.values())
        seconds = max(LEAST_LOOK_SECONDS, first + self._idle - monotonic())
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
        self._look_later()


def looked_at(task: "asyncio.Future[None]") -> None:
    """Log why a session did not begin, which whoever waits for it is told too."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("session.not_begun", extra={"reason": str(error)})
