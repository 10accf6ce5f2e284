"""Dispatcher of a server's messages to calls, to waiting requests, or to all clients."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from toolbus_common.errors import ToolbusError
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.mcp_messages.request_builder import answer_body, refusal
from toolbus_executor.mcp_messages.result_mapping import in_one_line
from toolbus_executor.upstreams.base import UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND, Caller, Question
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.attribution import Attribution
from toolbus_executor.upstreams.suspended_calls import unanswered

_OF_LISTS = frozenset(f"notifications/{name}/list_changed" for name in ("tools", "prompts"))
_CHANGES = _OF_LISTS | {"notifications/resources/list_changed"}
_OF_TASKS = frozenset({"notifications/tasks", "notifications/tasks/status"})
_PASSED_ON = _OF_TASKS | {"notifications/resources/updated", "notifications/elicitation/complete"}


_UNATTRIBUTED = (
    "The request cannot be attributed to a call: its call has ended, or several calls are "
    "possible. Send the request within the call, or name a related task."
)


class MessageDispatcher:
    """Dispatcher of the messages of one session or of one multiplexed connection.

    A message on the stream of a call belongs to that call. A request that contains a task id
    belongs to the call that waits for the task's result. Any other message is attributed
    (`Attribution`) or dropped: its call may have ended, and no other caller may receive it. `write`
    sends the body of a response.
    """

    def __init__(self, news: UpstreamCallbacks, write: Callable[[bytes], None]) -> None:
        self.callers: dict[int, Caller] = {}
        self.waiting: dict[int, asyncio.Future[messages.Incoming]] = {}
        self.may_ask = True  # whether the server may send requests; a modern server may not
        self.raised = False  # a caller raised the server's log level
        self._history = Attribution()
        self._news = news
        self._write = write

    @contextmanager
    def call(self, number: int, caller: Caller) -> Iterator[None]:
        """Attribute messages to a call while the context is entered."""
        self.callers[number] = caller
        self._history.begin(caller)
        answered = False
        try:
            yield
            answered = True
        finally:
            del self.callers[number]
            self._history.end(number, answered=answered)
            self.answer_unshown(caller)

    def answer_unshown(self, caller: Caller) -> None:
        """Answer the requests of an ended call that its client has not received."""
        for question in caller.unshown():
            if self._news.is_one_client():  # it may belong to another call of the same client
                self._put(question, self._requesting_call())
            else:
                question.answer(unanswered(question.method))

    @property
    def certain(self) -> bool:
        """Whether all earlier calls have certainly ended in the server."""
        return self._history.certain

    def take(self, message: messages.Incoming, caller: Caller | None = None) -> None:
        """Dispatch a message. `caller` is set if the message is from the stream of its call."""
        if not message.method:
            self._answer(message)
        elif message.id is None:
            self._notification(message, caller)
        elif self.may_ask:
            self._request(message, caller or self._call_of(message))
        else:
            self._news.on_dropped("request")

    def take_apart(self, message: messages.Incoming) -> None:
        """Dispatch a message from the stream of a request of Toolbus itself.

        Such a stream contains no messages of calls, except requests for a task.
        """
        if message.method == "notifications/message":
            self._news.on_dropped("log")
        elif message.method and message.id is not None:
            self._request(message, self._of_task(message))
        else:
            self.take(message)

    def _answer(self, message: messages.Incoming) -> None:
        future = self.waiting.get(message.id) if type(message.id) is int else None
        if future is not None and not future.done():
            future.set_result(message)
        else:
            self._history.answered(message.id)

    def _notification(self, message: messages.Incoming, caller: Caller | None) -> None:
        if message.method == "notifications/progress":
            self._progress(message)
        elif message.method == "notifications/message":
            self._log(message, caller or self._history.owner(self.callers))
        elif message.method in _CHANGES:
            self._news.on_notification(message.method, b"{}")
            self._news.on_lists_changed()
        elif message.method in _PASSED_ON:
            self._news.on_notification(message.method, in_one_line(bytes(message.params)))

    def fail(self, error: Callable[[], ToolbusError]) -> None:
        """Fail all waiting requests, because no response will arrive."""
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(error())

    def _call_of(self, message: messages.Incoming) -> Caller | None:
        """Return the call that a request belongs to, by its task or by attribution."""
        if task_formats.related(bytes(message.params)):
            return self._of_task(message)
        if message.method == "ping":
            return None
        if message.method == "roots/list" and not self.callers:
            return None  # servers request roots at any time, even without a call
        return self._requesting_call()

    def _requesting_call(self) -> Caller | None:
        return self._history.requesting_call(self.callers, one_client=self._news.is_one_client())

    def _of_task(self, message: messages.Incoming) -> Caller | None:
        task = task_formats.related(bytes(message.params))
        return next((each for each in self.callers.values() if task and each.task == task), None)

    def _progress(self, message: messages.Incoming) -> None:
        progress = messages.progress_of(message)
        if progress is None:
            return
        caller = self.callers.get(progress[0]) if type(progress[0]) is int else None
        if caller is None:
            self._news.on_dropped("progress")
        else:
            caller.progressed(progress[1])

    def _log(self, message: messages.Incoming, caller: Caller | None) -> None:
        entry = messages.log_of(message)
        if entry is None:
            return
        if caller is None:
            self._news.on_dropped("log")
        else:
            caller.logged(*entry, raised=self.raised)

    def _request(self, message: messages.Incoming, caller: Caller | None) -> None:
        def answer(member: bytes) -> None:
            with suppress(ToolbusError):  # the server can be disconnected
                self._write(answer_body(message.id, member))

        if message.method != "ping" and self._news.on_request is not None:
            self._news.on_request()
        params = task_formats.unrelated(in_one_line(bytes(message.params)))
        self._put(Question(message.method, params, answer), caller)

    def _put(self, question: Question, caller: Caller | None) -> None:
        """Forward a request to the client of a call, or to the client that owns the connection.

        If there is no such client, answer the request.
        """
        if caller is not None:
            caller.request(question)
        elif question.method == "ping":
            question.answer(b'"result":{}')
        elif self._news.is_one_client() and self._news.forward_request is not None:
            self._news.forward_request(question)
        elif question.method == "roots/list":
            question.answer(b'"result":{"roots":[]}')
        else:
            self._news.on_dropped("request")
            question.answer(refusal(METHOD_NOT_FOUND, _UNATTRIBUTED))
