"""Put questions that belong to no call to the client session that a connection belongs to."""

import asyncio
import secrets
from dataclasses import dataclass

from toolbus_common.contracts import ClientMessage
from toolbus_executor.mcp_messages.request_builder import refusal
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND, Question
from toolbus_executor.upstreams.suspended_calls import unanswered

TAKEN_SECONDS = 2.0  # after which no ingress has a stream of the client
ANSWER_SECONDS = 330.0  # longer than an ingress waits for its client
MOST_WAITING = 1000
MOST_EACH = 32  # of one client session
_NO_STREAM = "The client has no open stream for requests outside of its calls."


@dataclass(eq=False, slots=True)
class _Waiting:
    session: str
    question: Question
    timer: asyncio.TimerHandle


class ClientQuestions:
    """The questions outside calls of one server that this executor waits for answers to."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def put(self, session: str, question: Question) -> str:
        """Keep a question until its client answers; the id to ask under, empty if it is refused."""
        each = sum(waiting.session == session for waiting in self._waiting.values())
        if len(self._waiting) >= MOST_WAITING or each >= MOST_EACH:
            question.answer(refusal(METHOD_NOT_FOUND, "The client has too many open requests."))
            return ""
        number = secrets.token_hex(16)
        timer = asyncio.get_running_loop().call_later(TAKEN_SECONDS, self._not_taken, number)
        self._waiting[number] = _Waiting(session, question, timer)
        return number

    def hear(self, said: ClientMessage) -> None:
        """Take what an ingress says of a client session."""
        waiting = self._waiting.get(said.about)
        if said.what == "ended":
            for number, each in tuple(self._waiting.items()):
                if each.session == said.session:
                    self._settle(number, unanswered(each.question.method))
        elif waiting is None or waiting.session != said.session:
            return
        elif said.what == "taken":
            waiting.timer.cancel()
            waiting.timer = asyncio.get_running_loop().call_later(
                ANSWER_SECONDS, self._settle, said.about, unanswered(waiting.question.method)
            )
        elif said.what == "answered":
            self._settle(said.about, said.body)

    def _not_taken(self, number: str) -> None:
        roots = self._waiting[number].question.method == "roots/list"
        nothing = b'"result":{"roots":[]}' if roots else refusal(METHOD_NOT_FOUND, _NO_STREAM)
        self._settle(number, nothing)

    def _settle(self, number: str, member: bytes) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.timer.cancel()
            waiting.question.answer(member)
