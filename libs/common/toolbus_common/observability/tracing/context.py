"""The span a task works on now, and the trace its log lines belong to."""

from asyncio import CancelledError
from collections.abc import Awaitable
from contextvars import ContextVar, Token
from time import time_ns
from typing import Protocol, Self, TypeVar

from toolbus_common.errors import ToolbusError
from toolbus_common.observability.trace_context import child_of, span_id

T = TypeVar("T")
Value = str | bool | int | float

MOST_LINKS = 128  # of one span


class Sink(Protocol):
    """What takes spans that have ended."""

    def take(self, span: "Span") -> None:
        """Have it, at once and without waiting."""
        ...


class Nothing:
    """The span of a call that is not recorded: it costs what it does, which is nothing."""

    __slots__ = ()
    recorded = False
    traceparent = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def around(self, work: Awaitable[T]) -> Awaitable[T]:
        """The work as it is."""
        return work

    def note(self, _name: str, _value: Value) -> None:
        """Nothing is noted."""

    def fail(self, _kind: str) -> None:
        """Nothing is noted."""

    def end(self) -> None:
        """It never began."""


class Span:
    """Something that takes time in one service, as part of a trace.

    Only names, kinds and numbers belong into its attributes: no argument, no result, no secret.
    """

    __slots__ = (
        "_before", "_sink", "_token", "attributes", "began", "ended", "error", "kind", "links",
        "name", "parent_id", "service", "traceparent",
    )  # fmt: skip
    recorded = True

    def __init__(self, sink: Sink, service: str, name: str, kind: int, parent: str) -> None:
        self._sink = sink
        self.service = service
        self.name = name
        self.kind = kind
        self.traceparent = child_of(parent)
        self.parent_id = span_id(parent)
        self.began = time_ns()
        self.ended = 0
        self.attributes: dict[str, Value] = {}
        self.links: list[str] = []  # traceparents
        self.error = ""
        self._token: Token[Span | Nothing] | None = None
        self._before: Token[str] | None = None

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        self._before = _bound.set(self.traceparent)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._token is not None and self._before is not None:
            _current.reset(self._token)
            _bound.reset(self._before)
        if error is not None and not self.ended:
            self.fail(_kind_of(error))
        self.end()

    async def around(self, work: Awaitable[T]) -> T:
        """What some work comes to, which takes as long as this."""
        with self:
            return await work

    def note(self, name: str, value: Value) -> None:
        """Note an attribute, unless there is nothing to say."""
        if value != "":
            self.attributes[name] = value

    def fail(self, kind: str) -> None:
        """It did not succeed; `kind` is one of few words, never a sentence."""
        self.error = kind
        self.attributes["error.type"] = kind

    def end(self) -> None:
        """It is over. Whatever comes after the first end is not noted."""
        if not self.ended:
            self.ended = time_ns()
            self._sink.take(self)


def _kind_of(error: BaseException) -> str:
    if isinstance(error, ToolbusError):
        return error.code
    if isinstance(error, CancelledError):
        return "cancelled"
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__


NOTHING = Nothing()
_current: ContextVar[Span | Nothing] = ContextVar("toolbus_span", default=NOTHING)
_bound: ContextVar[str] = ContextVar("toolbus_trace", default="")


def current() -> Span | Nothing:
    """The span under way in this task."""
    return _current.get()


def bind(traceparent: str) -> None:
    """Have this task work for that trace, recorded or not: its log lines say so."""
    _bound.set(traceparent)


def bound() -> str:
    """The traceparent this task works for; empty when for none."""
    return _bound.get()
