"""Channel to the caller of one call: notifications, and requests to its client."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from toolbus_common.contracts import (
    CallAdmitted,
    CallNotification,
    DeadlineExtended,
    Notification,
    Progress,
    StreamPaused,
)
from toolbus_common.contracts.replies import CallContext
from toolbus_executor.mcp_messages.client_capabilities import kinds_of, request_kind
from toolbus_executor.mcp_messages.log_levels import DEFAULT, NO_LEVEL, rank_of
from toolbus_executor.mcp_messages.request_builder import name_of, refusal
from toolbus_executor.mcp_messages.task_formats import RESULT
from toolbus_executor.upstreams.deadline_extension import CallDeadline, DeadlineExtension
from toolbus_executor.upstreams.progress_limiter import ProgressLimiter

MAX_WAITING = 64  # unsent messages of one call
MAX_QUESTIONS = 32
METHOD_NOT_FOUND = -32601


Owner = tuple[str, str, str, str]  # a principal: customer, key, user and digest


@dataclass(frozen=True, slots=True)
class Question:
    """A server's request during a call. `answer` receives the raw member of the response."""

    method: str
    params: bytes
    answer: Callable[[bytes], None]


class Caller:
    """The channel to the caller of one call.

    A call that was suspended for input and the call that continues it use the same channel.
    """

    __slots__ = (
        "_began",
        "_call",
        "_count",
        "_extending",
        "_held",
        "_kinds",
        "_least",
        "_outbox",
        "_pace",
        "_patience",
        "_progress",
        "_pump",
        "_timer",
        "_unasked",
        "context",
        "likely",
        "next_request",
        "owner",
        "questions",
        "shown",
        "suspect",
        "task",
        "used",
    )  # fmt: skip

    def __init__(
        self, call: CallAdmitted, context: CallContext, extending: DeadlineExtension | None = None
    ) -> None:
        self._outbox: deque[CallNotification | DeadlineExtended] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._count = 0
        self._pace: ProgressLimiter | None = None
        self._held = b""  # the latest progress, while the rate limit delays it
        self._timer: asyncio.TimerHandle | None = None
        self.owner: Owner = (call.customer, call.key, call.user, call.principal_id)
        self.questions: dict[str, Question] = {}
        self.used = False  # a message was sent, or is delayed
        self.likely = True  # the server may send requests during this call
        self.suspect = False  # the server sent a request during this call, or may have
        self.shown = False  # the client received the requests, and will answer them
        # The task whose requests belong to this call.
        self.task = name_of(call) if call.method == RESULT else ""
        self.next_request: asyncio.Future[None] | None = None  # resolved by the next request
        self.answer_to(call, context, extending)

    @property
    def received_request(self) -> bool:
        """Whether the server sent a request during the call."""
        return self._count > 0

    def answer_to(
        self, call: CallAdmitted, context: CallContext, extending: DeadlineExtension | None = None
    ) -> None:
        """Attach the channel to this call. Progress extends the deadline as `extending` allows."""
        self._call = call
        self._began = monotonic()
        self._extending = extending
        self._patience: CallDeadline | None = None
        self.context = context
        self._progress = call.progress
        self._least = rank_of(call.log_level) if call.log_level else NO_LEVEL
        self._unasked = call.default_logs and not call.log_level
        self._kinds = call.capabilities

    def progressed(self, body: bytes) -> None:
        """Forward the server's progress.

        Above the rate limit, only the latest progress is sent, after a delay.
        """
        self.works()
        if not self._progress:
            return
        early, self._held, self.used = bool(self._held), body, True
        if early:
            return
        self._pace = self._pace or ProgressLimiter()
        loop = asyncio.get_running_loop()
        wait = self._pace.wait(loop.time())
        if wait > 0:
            self._timer = loop.call_later(wait, self._release)
        else:
            self._release()

    def works(self) -> None:
        """Extend the deadline of the call, because the server is working on it."""
        if self._patience is not None:
            self._patience.restart()
        elif self._extending is not None:
            self._patience = CallDeadline(self._call, self._began, self._extending, self._extend)
            self._patience.restart()

    def left(self) -> float:
        """Return the seconds until the extended deadline; 0 or less if it is not extended."""
        return 0.0 if self._patience is None else self._patience.left()

    def suspend(self) -> None:
        """Detach the channel from its call until another call continues."""
        self._extending = self._patience = None

    def logged(self, rank: int, body: bytes, *, raised: bool = False) -> None:
        """Forward a log message of this severity.

        A caller without a level receives all messages that the server sends by default. If the
        server's level was changed for other callers (`raised`), a caller without a level receives
        only messages of the usual default level and above.
        """
        least = (DEFAULT if raised else 0) if self._unasked else self._least
        if rank >= least:
            self._notify(Notification("notifications/message", body))

    def paused(self, seconds: float) -> None:
        """Report that the server closed its stream, and will resume it after these seconds."""
        self._notify(StreamPaused(round(seconds * 1000)))

    def request(self, question: Question) -> None:
        """Store a request for the caller. Reject it if the client does not support it."""
        self.suspect = self.suspect or question.method != "ping"
        if question.method == "ping":
            question.answer(b'"result":{}')
            return
        kind = request_kind(question.method, question.params)
        if kind not in kinds_of(self._kinds) or len(self.questions) >= MAX_QUESTIONS:
            question.answer(refusal(METHOD_NOT_FOUND, "The client does not support this request."))
            return
        self._count += 1
        self.questions[f"q{self._count}"] = question
        if self.next_request is not None and not self.next_request.done():
            self.next_request.set_result(None)

    def unshown(self) -> list[Question]:
        """Remove the requests that the client has not received, and return them."""
        if self.shown:
            return []
        left, self.questions = list(self.questions.values()), {}
        return left

    async def flushed(self) -> None:
        """Wait until everything is sent, including delayed progress."""
        self._release()
        if self._pump is not None:
            await self._pump

    def _release(self) -> None:
        """Send the delayed progress, if there is any."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        body, self._held = self._held, b""
        if body and self._pace is not None:
            self._pace.tell(asyncio.get_running_loop().time())
            self._put(Progress(body))  # not limited by `MAX_WAITING`: the rate is limited

    def _extend(self, deadline: float) -> None:
        """Send the call's new deadline to the service that waits for the reply."""
        self._put(DeadlineExtended(deadline))

    def _notify(self, message: CallNotification) -> None:
        if len(self._outbox) < MAX_WAITING:
            self._put(message)

    def _put(self, message: CallNotification | DeadlineExtended) -> None:
        self.used = True
        self._outbox.append(message)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        while self._outbox:
            await self.context.send(self._outbox.popleft())
