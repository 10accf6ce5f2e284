"""The current span of a task, and the trace of its log lines."""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from time import time_ns
from typing import Final, Protocol, Self, TypeVar

from toolbus_common.errors import ToolbusError
from toolbus_common.observability.trace_context import child_of, span_id

T = TypeVar("T")
Value = str | bool | int | float | tuple[str, ...]

MAX_LINKS = 128  # per span


class Sink(Protocol):
    """A receiver of ended spans."""

    def take(self, span: "Span") -> None:
        """Receive an ended span without blocking."""
        ...


class Nothing:
    """A span that is not recorded. All methods do nothing."""

    __slots__ = ()
    recorded = False
    traceparent = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def around(self, work: Awaitable[T]) -> Awaitable[T]:
        """Return the work unchanged."""
        return work

    def note(self, _name: str, _value: Value) -> None:
        """Ignore an attribute."""

    def fail(self, _kind: str) -> None:
        """Ignore a failure."""

    def end(self) -> None:
        """Ignore the end."""


class Span:
    """An operation of one service within a trace.

    Attributes contain only names, kinds and numbers, never arguments, results or secrets.
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
        """Await `work` inside this span and return its result."""
        with self:
            return await work

    def note(self, name: str, value: Value) -> None:
        """Set an attribute, unless the value is an empty text."""
        if value != "":
            self.attributes[name] = value

    def fail(self, kind: str) -> None:
        """Mark the span as failed. `kind` is an error code of low cardinality, never a message."""
        self.error = kind
        self.attributes["error.type"] = kind

    def end(self) -> None:
        """End the span. Further calls have no effect."""
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


# Returns the current span of this task; `NOTHING` if there is none. Each call uses it several
# times, so it is the variable's own method, without a Python frame.
current: Final[Callable[[], Span | Nothing]] = _current.get


def bind(traceparent: str) -> None:
    """Bind this task to a trace, whether it is recorded or not.

    The log lines of the task then contain the ids of the trace.
    """
    _bound.set(traceparent)


def bound() -> str:
    """Return the traceparent that this task is bound to; empty if there is none."""
    return _bound.get()
