"""Scale to zero: stop a process that is idle, and start it again for the next call."""

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
from toolbus_executor.upstreams.suspended_calls import SuspendedCalls

LISTED_SECONDS = 10.0  # seconds after which a process that was started only for listing is stopped
TASK_SECONDS = 3600.0  # seconds for which a task that is not polled keeps the process running


class ReliedOn(Protocol):
    """Subscriptions that keep the server running."""

    @property
    def names(self) -> Collection[str]:
        """The names subscribed to."""
        ...


class IdleShutdown:
    """The idle state of one server, and the reasons to keep it running."""

    def __init__(
        self,
        declared: Server,
        bulkhead: Bulkhead,
        suspended: SuspendedCalls,
        watched: Sequence[ReliedOn],
    ) -> None:
        self.asleep = False
        self.requested_at = 0.0  # time of the latest call, or 0
        self.answered = False  # a call since it was connected
        self._seconds = declared.idle if declared.is_process else 0.0
        # Each executor starts such a process itself, and receives calls before it runs.
        self._started_here = declared.is_process and declared.sessions != "shared"
        self._bulkhead = bulkhead
        self._suspended = suspended
        self._watched = watched
        self._tasks: dict[str, float] = {}  # created here -> until when they count
        self._since = 0.0
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def scales(self) -> bool:
        """Whether the server is stopped when idle."""
        return self._seconds > 0

    @property
    def busy(self) -> bool:
        """Whether the server has work, or subscriptions or tasks that a client relies on."""
        at_work = self._bulkhead.in_flight or self._bulkhead.waiting or len(self._suspended)
        return bool(at_work or any(each.names for each in self._watched) or self._at_tasks())

    @property
    def awaited(self) -> bool:
        """Whether calls must wait because the server is stopped or in its first start."""
        return self.asleep or (self._started_here and not self._settled.is_set())

    async def until_due(self) -> None:
        """Wait until the server may be stopped. This may never happen."""
        if not self.scales:
            await asyncio.get_running_loop().create_future()
        while (left := self._left()) > 0:  # noqa: ASYNC110 - it is not notified of every call
            await asyncio.sleep(left)

    def falls_asleep(self) -> bool:
        """Mark the server as idle if its idle time is over; the caller then stops the process."""
        if not self.scales or self._left() > 0:
            return False
        self.fall_asleep()
        return True

    def fall_asleep(self) -> None:
        """Mark the server as idle: the next call starts it."""
        self.asleep = True
        self._wanted.clear()
        self._settled.clear()

    async def until_wanted(self) -> None:
        """Wait for a call if the server is stopped."""
        if self.asleep:
            await self._wanted.wait()

    async def wake(self, seconds: float) -> None:
        """Request the start of the server and wait for it. Raises `TimeoutError`."""
        self._wanted.set()
        async with asyncio.timeout(seconds):
            await self._settled.wait()

    def settle(self) -> None:
        """Release the waiting calls, because the server runs or cannot be started."""
        self.asleep, self.answered = False, False
        self._since = monotonic()
        self._settled.set()

    def note(self, call: CallAdmitted, reply: FinalReply) -> None:
        """Record a task that was created or has ended."""
        with suppress(msgspec.DecodeError):
            if isinstance(reply, TaskCreated):
                raw = task_formats.nested(reply.body) or reply.body
                self._tasks[task_formats.read(raw).taskId] = monotonic() + TASK_SECONDS
            elif isinstance(reply, CallResult) and _ended(call, reply):
                self._tasks.pop(name_of(call), None)

    def _at_tasks(self) -> bool:
        now = monotonic()
        self._tasks = {task: until for task, until in self._tasks.items() if until > now}
        return bool(self._tasks)

    def _left(self) -> float:
        """Return the seconds until the server may be stopped if there is no further activity."""
        now = monotonic()
        if self.busy:
            self.requested_at = now
        patience = self._seconds if self.requested_at else min(self._seconds, LISTED_SECONDS)
        return max(self.requested_at, self._since) + patience - now


def _ended(call: CallAdmitted, reply: CallResult) -> bool:
    """Return whether a reply means that its task is over."""
    if call.method in (task_formats.RESULT, task_formats.CANCEL):
        return True
    return (
        call.method == task_formats.GET
        and task_formats.read(reply.body).status in task_formats.ENDED
    )


def digest_of(declared: Server) -> str:
    """Return a digest of a process's configuration; empty for other kinds."""
    if not declared.is_process:
        return ""
    return hashlib.sha256(declared.model_dump_json().encode()).hexdigest()[:16]


def listing_fields(upstream: object, declared: Server) -> dict[str, Any]:
    """Return the listing fields that are not lists: the configuration digest and the handshake."""
    handshake = getattr(upstream, "handshake", None)
    return {"declared": digest_of(declared), "handshake": handshake}


def described_in(known: Listing) -> Described:
    """Return the server's description from its listing."""
    return Described(
        known.family, known.version, known.instructions, known.capabilities, known.server_info
    )


def is_current(known: Listing | None, declared: Server) -> bool:
    """Return whether a published listing is complete and of the current configuration."""
    return (
        known is not None
        and known.state is ServerState.READY
        and not known.failed
        and known.declared == digest_of(declared)
    )
