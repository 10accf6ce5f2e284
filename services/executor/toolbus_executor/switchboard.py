"""What a server says, brought to whoever it is for: a call, whoever waits, or everyone."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from toolbus_common.errors import ToolbusError
from toolbus_executor import task_forms, wire
from toolbus_executor.caller import METHOD_NOT_FOUND, Caller, Question
from toolbus_executor.requests import answer_body, refusal
from toolbus_executor.results import in_one_line
from toolbus_executor.upstream import News

_OF_LISTS = frozenset(f"notifications/{name}/list_changed" for name in ("tools", "prompts"))
_CHANGES = _OF_LISTS | {"notifications/resources/list_changed"}
_OF_TASKS = frozenset({"notifications/tasks", "notifications/tasks/status"})
_SAID = _OF_TASKS | {"notifications/resources/updated", "notifications/elicitation/complete"}


class Switchboard:
    """One session of a server, or one connection that carries everything.

    A question that names a task is for who waits for its result. What names nothing belongs to the
    only call under way if there is exactly one: with two, one customer could be told what concerns
    another. `write` takes the body of an answer.
    """

    def __init__(self, news: News, write: Callable[[bytes], None]) -> None:
        self.callers: dict[int, Caller] = {}
        self.waiting: dict[int, asyncio.Future[wire.Incoming]] = {}
        self.may_ask = True  # no modern server may
        self._news = news
        self._write = write

    def take(self, message: wire.Incoming, caller: Caller | None = None) -> None:
        """Take a message; `caller` is whose stream it came on."""
        if not message.method:
            self._answer(message)
        elif message.id is None:
            self._hear(message, caller)
        elif self.may_ask:
            self._ask(message, caller or self._meant(message))

    def _answer(self, message: wire.Incoming) -> None:
        future = self.waiting.get(message.id) if isinstance(message.id, int) else None
        if future is not None and not future.done():
            future.set_result(message)

    def _hear(self, message: wire.Incoming, caller: Caller | None) -> None:
        if message.method == "notifications/progress":
            self._progress(message)
        elif message.method == "notifications/message":
            self._log(message, caller or self._only())
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

    def _only(self) -> Caller | None:
        return next(iter(self.callers.values())) if len(self.callers) == 1 else None

    def _meant(self, message: wire.Incoming) -> Caller | None:
        """Whom a question is for: who waits for its task's result, or the only one there is."""
        task = task_forms.related(bytes(message.params))
        if not task:
            return self._only()
        return next((each for each in self.callers.values() if each.task == task), None)

    def _progress(self, message: wire.Incoming) -> None:
        told = wire.progress_of(message)
        caller = self.callers.get(told[0]) if told and isinstance(told[0], int) else None
        if told is not None and caller is not None:
            caller.progressed(told[1])

    def _log(self, message: wire.Incoming, caller: Caller | None) -> None:
        told = wire.log_of(message)
        if told is not None and caller is not None:
            caller.logged(*told)

    def _ask(self, message: wire.Incoming, caller: Caller | None) -> None:
        def answer(member: bytes) -> None:
            with suppress(ToolbusError):  # who asked may be gone by now
                self._write(answer_body(message.id, member))

        if caller is not None:
            params = task_forms.unrelated(in_one_line(bytes(message.params)))
            caller.ask(Question(message.method, params, answer))
        elif message.method == "ping":
            answer(b'"result":{}')
        elif message.method == "roots/list":
            answer(b'"result":{"roots":[]}')
        else:
            answer(refusal(METHOD_NOT_FOUND, "No call under way is known to ask this."))
