"""Whoever waits for one call: told what the server says meanwhile, and asked what it asks."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from toolbus_common.contracts import CallAdmitted, Notified, Progressed, Told
from toolbus_common.exchange import Reply
from toolbus_executor.capabilities import kind_asked, kinds_of
from toolbus_executor.levels import rank_of
from toolbus_executor.requests import refusal

MOST_WAITING = 64  # frames of one call still to be sent
MOST_QUESTIONS = 32
METHOD_NOT_FOUND = -32601


@dataclass(frozen=True, slots=True)
class Question:
    """A server's request in the middle of a call; `answer` takes the raw member of the answer."""

    method: str
    params: bytes
    answer: Callable[[bytes], None]


class Caller:
    """One call's way back. After a round of questions another call takes it over."""

    __slots__ = (
        "_count", "_frames", "_kinds", "_least", "_progress", "_pump", "_reply", "asked",
        "questions",
    )  # fmt: skip

    def __init__(self, call: CallAdmitted, reply: Reply) -> None:
        self._frames: deque[Told] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._count = 0
        self.questions: dict[str, Question] = {}
        self.asked: asyncio.Future[None] | None = None  # for whoever waits for a question
        self.answer_to(call, reply)

    def answer_to(self, call: CallAdmitted, reply: Reply) -> None:
        """Belong to this call from now on."""
        self._reply = reply
        self._progress = call.progress
        self._least = rank_of(call.log_level)
        self._kinds = call.capabilities

    def progressed(self, body: bytes) -> None:
        """The server says how far it is."""
        if self._progress:
            self._tell(Progressed(body))

    def logged(self, rank: int, body: bytes) -> None:
        """The server logs something of this gravity."""
        if rank >= self._least:
            self._tell(Notified("notifications/message", body))

    def ask(self, question: Question) -> None:
        """Keep a question for the caller, or refuse one it cannot be asked."""
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

    async def flushed(self) -> None:
        """Return once everything told so far has been sent."""
        if self._pump is not None:
            await self._pump

    def _tell(self, frame: Told) -> None:
        if len(self._frames) >= MOST_WAITING:
            return  # later ones will say more
        self._frames.append(frame)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        while self._frames:
            await self._reply.send(self._frames.popleft())
