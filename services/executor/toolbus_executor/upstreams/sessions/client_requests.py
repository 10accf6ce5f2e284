"""Requests outside of calls, forwarded to the client session that owns a connection."""

import asyncio
import secrets
from dataclasses import dataclass

from toolbus_common.contracts import ClientMessage
from toolbus_executor.mcp_messages.request_builder import refusal
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND, Question
from toolbus_executor.upstreams.suspended_calls import unanswered

TAKEN_SECONDS = 2.0  # after this time, no ingress has a stream of the client
ANSWER_SECONDS = 330.0  # longer than an ingress waits for its client
MAX_WAITING = 1000
MAX_PER_SESSION = 32  # waiting requests of one client session
_NO_STREAM = (
    "The client has no open stream for requests outside of its calls; send them during a call."
)


@dataclass(eq=False, slots=True)
class _Waiting:
    session: str
    question: Question
    timer: asyncio.TimerHandle


class ClientQuestions:
    """Requests of one server outside of calls. They wait in this process for clients' answers."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def put(self, session: str, question: Question) -> str:
        """Store a request until its client answers, and return its id.

        The id is empty if the request was rejected because of a limit.
        """
        each = sum(waiting.session == session for waiting in self._waiting.values())
        if len(self._waiting) >= MAX_WAITING or each >= MAX_PER_SESSION:
            question.answer(refusal(METHOD_NOT_FOUND, "The client has too many open requests."))
            return ""
        number = secrets.token_hex(16)
        timer = asyncio.get_running_loop().call_later(TAKEN_SECONDS, self._not_taken, number)
        self._waiting[number] = _Waiting(session, question, timer)
        return number

    def handle(self, message: ClientMessage) -> None:
        """Process a message of an ingress about a client session."""
        waiting = self._waiting.get(message.about)
        if message.what == "ended":
            for number, each in tuple(self._waiting.items()):
                if each.session == message.session:
                    self._settle(number, unanswered(each.question.method))
        elif waiting is None or waiting.session != message.session:
            return
        elif message.what == "taken":
            waiting.timer.cancel()
            waiting.timer = asyncio.get_running_loop().call_later(
                ANSWER_SECONDS, self._settle, message.about, unanswered(waiting.question.method)
            )
        elif message.what == "answered":
            self._settle(message.about, message.body)

    def _not_taken(self, number: str) -> None:
        roots = self._waiting[number].question.method == "roots/list"
        nothing = b'"result":{"roots":[]}' if roots else refusal(METHOD_NOT_FOUND, _NO_STREAM)
        self._settle(number, nothing)

    def _settle(self, number: str, member: bytes) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.timer.cancel()
            waiting.question.answer(member)
