"""Dispatches what a server says: to its call, to the request it answers, or to everyone."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from toolbus_common.errors import ToolbusError
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.mcp_messages.request_builder import answer_body, refusal
from toolbus_executor.mcp_messages.result_mapping import in_one_line
from toolbus_executor.upstreams.base import News
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND, Caller, Question
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.attribution import Attribution
from toolbus_executor.upstreams.suspended_calls import unanswered

_OF_LISTS = frozenset(f"notifications/{name}/list_changed" for name in ("tools", "prompts"))
_CHANGES = _OF_LISTS | {"notifications/resources/list_changed"}
_OF_TASKS = frozenset({"notifications/tasks", "notifications/tasks/status"})
_SAID = _OF_TASKS | {"notifications/resources/updated", "notifications/elicitation/complete"}


_UNATTRIBUTED = (
    "The request cannot be attributed to a call: its call has ended, or another could be meant. "
    "Ask within the call, or name a related task."
)


class Switchboard:
    """One session of a server, or one connection that carries everything.

    A message on the stream of a call is that call's, a question that names a task is for the call
    that waits for its result. What names nothing is attributed (`Attribution`) or dropped: its
    call may be gone, and no other caller may get it. `write` takes the body of an answer.
    """

    def __init__(self, news: News, write: Callable[[bytes], None]) -> None:
        self.callers: dict[int, Caller] = {}
        self.waiting: dict[int, asyncio.Future[messages.Incoming]] = {}
        self.may_ask = True  # no modern server may
        self.raised = False  # the server logs as much as one of its callers asked for
        self._history = Attribution()
        self._news = news
        self._write = write

    @contextmanager
    def call(self, number: int, caller: Caller) -> Iterator[None]:
        """Attribute to a call what concerns it, for as long as it is under way."""
        self.callers[number] = caller
        self._history.begin(caller)
        answered = False
        try:
            yield
            answered = True
        finally:
            del self.callers[number]
            self._history.end(number, answered=answered)
            for question in caller.unshown():
                if self._news.one_client():  # it may be that of another call of the same client
                    self._put(question, self._asker())
                else:
                    question.answer(unanswered(question.method))

    @property
    def certain(self) -> bool:
        """Whether no call that is gone may still be at work in the server."""
        return self._history.certain

    def take(self, message: messages.Incoming, caller: Caller | None = None) -> None:
        """Take a message; `caller` is whose stream it came on."""
        if not message.method:
            self._answer(message)
        elif message.id is None:
            self._hear(message, caller)
        elif self.may_ask:
            self._ask(message, caller or self._meant(message))
        else:
            self._news.dropped("request")

    def take_apart(self, message: messages.Incoming) -> None:
        """Take a message on a stream that carries none of a call: that of a request of our own."""
        if message.method == "notifications/message":
            self._news.dropped("log")
        elif message.method and message.id is not None:
            self._ask(message, self._of_task(message))
        else:
            self.take(message)

    def _answer(self, message: messages.Incoming) -> None:
        future = self.waiting.get(message.id) if type(message.id) is int else None
        if future is not None and not future.done():
            future.set_result(message)
        else:
            self._history.answered(message.id)

    def _hear(self, message: messages.Incoming, caller: Caller | None) -> None:
        if message.method == "notifications/progress":
            self._progress(message)
        elif message.method == "notifications/message":
            self._log(message, caller or self._history.owner(self.callers))
        elif message.method in _CHANGES:
            self._news.said(message.method, b"{}")
            self._news.changed()
        elif message.method in _SAID:
            self._news.said(message.method, in_one_line(bytes(message.params)))

    def fail(self, error: Callable[[], ToolbusError]) -> None:
        """Nobody will answer any more."""
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(error())

    def _meant(self, message: messages.Incoming) -> Caller | None:
        """The call a question is for: the one that waits for its task's result, or its own."""
        if task_formats.related(bytes(message.params)):
            return self._of_task(message)
        if message.method == "ping":
            return None
        if message.method == "roots/list" and not self.callers:
            return None  # servers ask for them at any time: it says nothing of calls
        return self._asker()

    def _asker(self) -> Caller | None:
        return self._history.asker(self.callers, one_client=self._news.one_client())

    def _of_task(self, message: messages.Incoming) -> Caller | None:
        task = task_formats.related(bytes(message.params))
        return next((each for each in self.callers.values() if task and each.task == task), None)

    def _progress(self, message: messages.Incoming) -> None:
        told = messages.progress_of(message)
        if told is None:
            return
        caller = self.callers.get(told[0]) if type(told[0]) is int else None
        if caller is None:
            self._news.dropped("progress")
        else:
            caller.progressed(told[1])

    def _log(self, message: messages.Incoming, caller: Caller | None) -> None:
        told = messages.log_of(message)
        if told is None:
            return
        if caller is None:
            self._news.dropped("log")
        else:
            caller.logged(*told, raised=self.raised)

    def _ask(self, message: messages.Incoming, caller: Caller | None) -> None:
        def answer(member: bytes) -> None:
            with suppress(ToolbusError):  # who asked may be gone by now
                self._write(answer_body(message.id, member))

        if message.method != "ping" and self._news.asked is not None:
            self._news.asked()
        params = task_formats.unrelated(in_one_line(bytes(message.params)))
        self._put(Question(message.method, params, answer), caller)

    def _put(self, question: Question, caller: Caller | None) -> None:
        """Put a question to a call's client, or to the client that the connection belongs to."""
        if caller is not None:
            caller.ask(question)
        elif question.method == "ping":
            question.answer(b'"result":{}')
        elif self._news.one_client() and self._news.ask is not None:
            self._news.ask(question)
        elif question.method == "roots/list":
            question.answer(b'"result":{"roots":[]}')
        else:
            self._news.dropped("request")
            question.answer(refusal(METHOD_NOT_FOUND, _UNATTRIBUTED))
