"""Whoever waits for one call: told what the server says meanwhile, and asked what it asks."""

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
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_executor.mcp_messages.client_capabilities import kind_asked, kinds_of
from toolbus_executor.mcp_messages.log_levels import DEFAULT, rank_of
from toolbus_executor.mcp_messages.request_builder import name_of, refusal
from toolbus_executor.mcp_messages.task_formats import RESULT
from toolbus_executor.upstreams.deadline_extension import Extending, Patience
from toolbus_executor.upstreams.progress_limiter import Pace

MOST_WAITING = 64  # frames of one call still to be sent
MOST_QUESTIONS = 32
METHOD_NOT_FOUND = -32601


Owner = tuple[str, str, str, str]  # the principal: customer, key, user, and its digest


@dataclass(frozen=True, slots=True)
class Question:
    """A server's request in the middle of a call; `answer` takes the raw member of the answer."""

    method: str
    params: bytes
    answer: Callable[[bytes], None]


class Caller:
    """One call's way back. After a round of questions another call takes it over."""

    __slots__ = (
        "_began", "_call", "_count", "_extending", "_frames", "_held", "_kinds", "_least", "_pace",
        "_patience", "_progress", "_pump", "_reply", "_timer", "_unasked", "asked", "likely",
        "owner", "questions", "shown", "suspect", "task",
    )  # fmt: skip

    def __init__(
        self, call: CallAdmitted, reply: ReplyChannel, extending: Extending | None = None
    ) -> None:
        self._frames: deque[CallNotification | DeadlineExtended] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._count = 0
        self._pace: Pace | None = None
        self._held = b""  # the latest progress, while it is too early to tell it
        self._timer: asyncio.TimerHandle | None = None
        self.owner: Owner = (call.customer, call.key, call.user, call.principal_id)
        self.questions: dict[str, Question] = {}
        self.likely = True  # the server may ask in this call, as far as is known of its tool
        self.suspect = False  # the server asked in this call, or may have
        self.shown = False  # the client has been sent the questions, and will answer them
        self.task = name_of(call) if call.method == RESULT else ""  # whose questions are for it
        self.asked: asyncio.Future[None] | None = None  # for whoever waits for a question
        self.answer_to(call, reply, extending)

    @property
    def was_asked(self) -> bool:
        """Whether the server asked something in the middle of the call."""
        return self._count > 0

    def answer_to(
        self, call: CallAdmitted, reply: ReplyChannel, extending: Extending | None = None
    ) -> None:
        """Belong to this call from now on; progress extends it as `extending` allows."""
        self._call = call
        self._began = monotonic()
        self._extending = extending
        self._patience: Patience | None = None
        self._reply = reply
        self._progress = call.progress
        self._least = rank_of(call.log_level)
        self._unasked = call.default_logs and not call.log_level
        self._kinds = call.capabilities

    def progressed(self, body: bytes) -> None:
        """The server says how far it is. Of what comes too fast the latest is told in time."""
        self.works()
        if not self._progress:
            return
        early, self._held = bool(self._held), body
        if early:
            return
        self._pace = self._pace or Pace()
        loop = asyncio.get_running_loop()
        wait = self._pace.wait(loop.time())
        if wait > 0:
            self._timer = loop.call_later(wait, self._release)
        else:
            self._release()

    def works(self) -> None:
        """Extend the call's deadline: the server is known to be working on it."""
        if self._patience is not None:
            self._patience.restart()
        elif self._extending is not None:
            self._patience = Patience(self._call, self._began, self._extending, self._extend)
            self._patience.restart()

    def left(self) -> float:
        """Return the seconds until the extended deadline; 0 or less where there is none."""
        return 0.0 if self._patience is None else self._patience.left()

    def suspend(self) -> None:
        """Belong to no call until another one takes over."""
        self._extending = self._patience = None

    def logged(self, rank: int, body: bytes, *, raised: bool = False) -> None:
        """The server logs something of this gravity.

        A caller that named no level takes what the server sends by itself; where the server was
        asked for more (`raised`) on behalf of others, what is sent by default elsewhere.
        """
        least = (DEFAULT if raised else 0) if self._unasked else self._least
        if rank >= least:
            self._tell(Notification("notifications/message", body))

    def paused(self, seconds: float) -> None:
        """The server closed its stream and is asked again after so many seconds."""
        self._tell(StreamPaused(round(seconds * 1000)))

    def ask(self, question: Question) -> None:
        """Keep a question for the caller, or refuse one it cannot be asked."""
        self.suspect = self.suspect or question.method != "ping"
        if question.method == "ping":
            question.answer(b'"result":{}')
            return
        kind = kind_asked(question.method, question.params)
        if kind not in kinds_of(self._kinds) or len(self.questions) >= MOST_QUESTIONS:
            question.answer(refusal(METHOD_NOT_FOUND, "The client does not offer this."))
            return
        self._count += 1
        self.questions[f"q{self._count}"] = question
        if self.asked is not None and not self.asked.done():
            self.asked.set_result(None)

    def unshown(self) -> list[Question]:
        """Return and forget the questions that the client has not been sent."""
        if self.shown:
            return []
        left, self.questions = list(self.questions.values()), {}
        return left

    async def flushed(self) -> None:
        """Return once everything told so far has been sent, the latest progress too."""
        self._release()
        if self._pump is not None:
            await self._pump

    def _release(self) -> None:
        """Tell the progress that is held, if any is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        body, self._held = self._held, b""
        if body and self._pace is not None:
            self._pace.tell(asyncio.get_running_loop().time())
            self._put(Progress(body))  # few enough to need no other bound

    def _extend(self, deadline: float) -> None:
        """Have whoever waits for the answer wait until this deadline."""
        self._put(DeadlineExtended(deadline))

    def _tell(self, frame: CallNotification) -> None:
        if len(self._frames) < MOST_WAITING:
            self._put(frame)

    def _put(self, frame: CallNotification | DeadlineExtended) -> None:
        self._frames.append(frame)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        while self._frames:
            await self._reply.send(self._frames.popleft())
