"""Registry of the tools with their schemas."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from .call import Call
from .notifications import Notifier
from .wire import Json

Run = Callable[[Call, "Place"], Awaitable[Json]]


@dataclass(frozen=True)
class Place:
    """The parts of the server that a tool may use besides its call."""

    notifier: Notifier
    sleep: Callable[[float], Awaitable[Any]]


@dataclass(frozen=True)
class Tool:
    """One tool. `task` is forbidden, optional or required; `before` runs before a task starts."""

    name: str
    run: Run
    description: str
    schema: Json
    task: str = "forbidden"
    before: Run | None = None
    extra: Json = field(default_factory=dict)

    @property
    def listed(self) -> Json:
        """The definition in `tools/list`."""
        fields = {"name": self.name, "description": self.description, "inputSchema": self.schema}
        return {**fields, **self.extra}


TOOLS: dict[str, Tool] = {}


def tool(
    name: str,
    schema: Json | None = None,
    *,
    task: str = "forbidden",
    before: Run | None = None,
    **extra: Any,
) -> Callable[[Run], Run]:
    """Register a tool; its docstring is its description."""

    def register(run: Run) -> Run:
        listed = schema if schema is not None else takes()
        TOOLS[name] = Tool(name, run, (run.__doc__ or "").strip(), listed, task, before, extra)
        return run

    return register


def takes(required: tuple[str, ...] = (), **fields: Json) -> Json:
    """Return an input schema."""
    return {
        "type": "object",
        "properties": fields,
        **({"required": list(required)} if required else {}),
    }
