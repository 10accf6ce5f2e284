"""Scale to zero: an idle process is stopped, and started again for the next call."""

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

LISTED_SECONDS = 10.0  # idle time of a process that was started only for listing
TASK_SECONDS = 3600.0  # time for which the process stays running for a task


class ReliedOn(Protocol):
    """Subscriptions for which the server must stay running."""

    @property
    def names(self) -> Collection[str]:
        """The names that clients are subscribed to."""
        ...


class IdleShutdown:
    """The idle state of one server, and the reasons for which it must stay running."""

    def __init__(
        self,
        declared: Server,
        bulkhead: Bulkhead,
        suspended: SuspendedCalls,
        watched: Sequence[ReliedOn],
    ) -> None:
        self.asleep = False
        self.requested_at = 0.0  # time of the latest call; 0 if there was none
        self.answered = False  # whether a call got a reply since the connection was opened
        self._seconds = declared.idle if declared.is_process else 0.0
        # Each executor starts such a process itself, and accepts calls before the process runs.
        self._started_here = declared.is_process and declared.sessions != "shared"
        self._bulkhead = bulkhead
        self._suspended = suspended
        self._watched = watched
        self._tasks: dict[str, float] = {}  # created tasks, each with the end of `TASK_SECONDS`
        self._since = 0.0
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def scales(self) -> bool:
        """Whether the server is stopped when it is idle."""
        return self._seconds > 0

    @property
    def busy(self) -> bool:
        """Whether the server has calls in progress, or subscriptions or tasks of clients."""
        at_work = self._bulkhead.in_flight or self._bulkhead.waiting or len(self._suspended)
        return bool(at_work or any(each.names for each in self._watched) or self._at_tasks())

    @property
    def awaited(self) -> bool:
        """Whether calls must wait because the server is stopped, or starts for the first time."""
        return self.asleep or (self._started_here and not self._settled.is_set())

    async def until_due(self) -> None:
        """Wait until the server may be stopped. Wait forever if it is never stopped."""
        if not self.scales:
            await asyncio.get_running_loop().create_future()
        while (left := self._left()) > 0:  # noqa: ASYNC110 - it is not notified of every call
            await asyncio.sleep(left)

    def falls_asleep(self) -> bool:
        """Return whether the idle time is over. If so, mark the server as idle.

        The caller must then stop the process.
        """
        if not self.scales or self._left() > 0:
            return False
        self.fall_asleep()
        return True

    def fall_asleep(self) -> None:
        """Mark the server as idle, so that the next call starts it."""
        self.asleep = True
        self._wanted.clear()
        self._settled.clear()

    async def until_wanted(self) -> None:
        """If the server was stopped because it was idle, wait until a call needs it."""
        if self.asleep:
            await self._wanted.wait()

    async def wake(self, seconds: float) -> None:
        """Request the start of the server, and wait until it has started or failed.

        Raises `TimeoutError`.
        """
        self._wanted.set()
        async with asyncio.timeout(seconds):
            await self._settled.wait()

    def settle(self) -> None:
        """Release the waiting calls, because the server has started or cannot be started."""
        self.asleep, self.answered = False, False
        self._since = monotonic()
        self._settled.set()

    def note(self, call: CallAdmitted, reply: FinalReply) -> None:
        """Record that a call created a task, or that its task has ended."""
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
        """Return the seconds until the server may be stopped if it stays idle."""
        now = monotonic()
        if self.busy:
            self.requested_at = now
        patience = self._seconds if self.requested_at else min(self._seconds, LISTED_SECONDS)
        return max(self.requested_at, self._since) + patience - now


def _ended(call: CallAdmitted, reply: CallResult) -> bool:
    """Return whether a reply means that the call's task has ended."""
    if call.method in (task_formats.RESULT, task_formats.CANCEL):
        return True
    return (
        call.method == task_formats.GET
        and task_formats.read(reply.body).status in task_formats.ENDED
    )


def digest_of(declared: Server) -> str:
    """Return a digest of a process's configuration; empty if the server is no process."""
    if not declared.is_process:
        return ""
    return hashlib.sha256(declared.model_dump_json().encode()).hexdigest()[:16]


def listing_fields(upstream: object, declared: Server) -> dict[str, Any]:
    """Return the fields of a listing in addition to its lists.

    These are the digest of the configuration, and the description from the handshake.
    """
    handshake = getattr(upstream, "handshake", None)
    return {"declared": digest_of(declared), "handshake": handshake}


def described_in(known: Listing) -> Described:
    """Return the server's description from its published listing."""
    return Described(
        known.family, known.version, known.instructions, known.capabilities, known.server_info
    )


def is_current(known: Listing | None, declared: Server) -> bool:
    """Return whether a published listing is complete and has the current configuration."""
    return (
        known is not None
        and known.state is ServerState.READY
        and not known.failed
        and known.declared == digest_of(declared)
    )
