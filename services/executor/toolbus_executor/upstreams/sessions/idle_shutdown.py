"""Scale to zero: a process with nothing to do is ended, and the next call has it back."""

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import msgspec

from toolbus_common.config import Server
from toolbus_common.contracts import (
    CallAdmitted,
    CallResult,
    FinalReply,
    Listing,
    ServerState,
    TaskCreated,
)
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.mcp_messages.request_builder import name_of
from toolbus_executor.resilience.bulkhead import Bulkhead
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.suspended_calls import Park

LISTED_SECONDS = 10.0  # how long one stays that was only started to be listed
TASK_SECONDS = 3600.0  # how long a task keeps it that nobody asks after


class ReliedOn(Protocol):
    """What must not end while somebody counts on hearing from it."""

    @property
    def names(self) -> Collection[str]:
        """What they count on."""
        ...


class Idling:
    """Whether one server sleeps, and what keeps it awake."""

    def __init__(
        self, declared: Server, bulkhead: Bulkhead, park: Park, watched: Sequence[ReliedOn]
    ) -> None:
        self.asleep = False
        self.requested_at = 0.0  # when it was called last, if it ever was
        self.answered = False  # since it was reached
        self._seconds = declared.idle if declared.is_process else 0.0
        # Each executor starts such a process for itself, and is handed calls before it has.
        self._started_here = declared.is_process and declared.sessions != "shared"
        self._bulkhead = bulkhead
        self._park = park
        self._watched = watched
        self._tasks: dict[str, float] = {}  # begun here -> until when they count
        self._since = 0.0
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def scales(self) -> bool:
        """Whether it ever sleeps."""
        return self._seconds > 0

    @property
    def busy(self) -> bool:
        """Whether it has something to do, or something that somebody comes back for."""
        at_work = self._bulkhead.in_flight or self._bulkhead.waiting or len(self._park)
        return bool(at_work or any(each.names for each in self._watched) or self._at_tasks())

    @property
    def awaited(self) -> bool:
        """Whether a call waits for the server: it sleeps, or starts for the first time."""
        return self.asleep or (self._started_here and not self._settled.is_set())

    async def until_due(self) -> None:
        """Wait until it may sleep, which may be never."""
        if not self.scales:
            await asyncio.get_running_loop().create_future()
        while (left := self._left()) > 0:  # noqa: ASYNC110 - it is not told of every call
            await asyncio.sleep(left)

    def falls_asleep(self) -> bool:
        """Whether it sleeps from here on; it must be taken out of reach before anything else."""
        if not self.scales or self._left() > 0:
            return False
        self.fall_asleep()
        return True

    def fall_asleep(self) -> None:
        """From here on, calls wake it."""
        self.asleep = True
        self._wanted.clear()
        self._settled.clear()

    async def until_wanted(self) -> None:
        """Wait for a call if it sleeps."""
        if self.asleep:
            await self._wanted.wait()

    async def wake(self, seconds: float) -> None:
        """Have it started, and wait until it is there or cannot be. Raises `TimeoutError`."""
        self._wanted.set()
        async with asyncio.timeout(seconds):
            await self._settled.wait()

    def settle(self) -> None:
        """It is there, or cannot be reached: who waits for it goes on."""
        self.asleep, self.answered = False, False
        self._since = monotonic()
        self._settled.set()

    def note(self, call: CallAdmitted, ending: FinalReply) -> None:
        """Take note of a task that began or ended."""
        with suppress(msgspec.DecodeError):
            if isinstance(ending, TaskCreated):
                raw = task_formats.nested(ending.body) or ending.body
                self._tasks[task_formats.read(raw).taskId] = monotonic() + TASK_SECONDS
            elif isinstance(ending, CallResult) and _ended(call, ending):
                self._tasks.pop(name_of(call), None)

    def _at_tasks(self) -> bool:
        now = monotonic()
        self._tasks = {task: until for task, until in self._tasks.items() if until > now}
        return bool(self._tasks)

    def _left(self) -> float:
        """Seconds until it may sleep, if nothing happens."""
        now = monotonic()
        if self.busy:
            self.requested_at = now
        patience = self._seconds if self.requested_at else min(self._seconds, LISTED_SECONDS)
        return max(self.requested_at, self._since) + patience - now


def _ended(call: CallAdmitted, ending: CallResult) -> bool:
    """Whether an answer says that its task is over."""
    if call.method in (task_formats.RESULT, task_formats.CANCEL):
        return True
    return (
        call.method == task_formats.GET
        and task_formats.read(ending.body).status in task_formats.ENDED
    )


def digest_of(declared: Server) -> str:
    """Tells one declaration of a process from another; empty for what is no process."""
    if not declared.is_process:
        return ""
    return hashlib.sha256(declared.model_dump_json().encode()).hexdigest()[:16]


def noted_of(upstream: object, declared: Server) -> dict[str, Any]:
    """What a listing holds beside the lists: which declaration it is of, and the other family."""
    handshake = getattr(upstream, "handshake", None)
    return {"declared": digest_of(declared), "handshake": handshake}


def described_in(known: Listing) -> Described:
    """What a server said of itself when it was listed."""
    return Described(
        known.family, known.version, known.instructions, known.capabilities, known.server_info
    )


def still_true(known: Listing | None, declared: Server) -> bool:
    """Whether what is published of a server was listed by it as it is declared."""
    return (
        known is not None
        and known.state is ServerState.READY
        and not known.failed
        and known.declared == digest_of(declared)
    )
