"""From what a server lists to what is published: bounded, and one bad tool drops only itself."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from toolbus_common.contracts import Listing, Offered, ServerState
from toolbus_common.errors import UpstreamFaultError
from toolbus_executor.upstream import Described

MOST_PAGES = 100
MOST_TOOLS = 5_000
LARGEST_DEFINITION = 64 * 1024  # bytes
LARGEST_LISTING = 6 * 1024 * 1024  # bytes; a listing is one entry of a bucket
DEEPEST_DEFINITION = 40

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,96}")

Page = Callable[[str | None], Awaitable[dict[str, Any]]]


async def all_tools(page: Page) -> list[Any]:
    """Every page of tools/list. Raises `UpstreamFaultError` for a listing without end or shape."""
    tools: list[Any] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        told = await page(cursor)
        found = told.get("tools")
        if not isinstance(found, list):
            raise UpstreamFaultError("Its tools/list holds no list of tools.")
        tools += found
        if len(tools) > MOST_TOOLS:
            raise UpstreamFaultError(f"It lists more than {MOST_TOOLS} tools.")
        cursor = told.get("nextCursor")
        if not isinstance(cursor, str):
            return tools
    raise UpstreamFaultError(f"Its tools/list has more than {MOST_PAGES} pages.")


def listing_of(server: str, described: Described, tools: list[Any]) -> Listing:
    """The entry to publish: good tools in the order of their names, the others with a reason."""
    kept: dict[str, Offered] = {}
    dropped: dict[str, str] = {}
    size = 0
    for number, definition in enumerate(tools):
        name = definition.get("name") if isinstance(definition, dict) else None
        fault = _fault(definition, name, kept, size)
        if fault:
            dropped[str(name)[:96] if name else f"#{number}"] = fault
        else:
            size += len(msgspec.json.encode(definition))
            kept[str(name)] = Offered(name=str(name), definition=definition)
    return Listing(
        server=server,
        state=ServerState.READY,
        era=described.era,
        version=described.version,
        instructions=described.instructions,
        dropped=dropped,
        tools=tuple(kept[name] for name in sorted(kept)),
    )


def _fault(definition: Any, name: Any, kept: dict[str, Offered], size: int) -> str:
    """What is wrong with a definition; empty when nothing is."""
    if not isinstance(definition, dict) or not isinstance(name, str):
        return "it has no name"
    if not _NAME.fullmatch(name):
        return "its name has characters or a length that clients do not take"
    if name in kept:
        return "its name is listed twice"
    return _fault_of_shape(definition) or _fault_of_size(definition, size)


def _fault_of_shape(definition: dict[str, Any]) -> str:
    if not isinstance(definition.get("inputSchema"), dict):
        return "it has no inputSchema"
    execution = definition.get("execution")
    if isinstance(execution, dict) and execution.get("taskSupport") == "required":
        return "it can only run as a task, which this version does not drive"
    return ""


def _fault_of_size(definition: dict[str, Any], size: int) -> str:
    if _deeper_than(definition, DEEPEST_DEFINITION):
        return f"its definition is nested deeper than {DEEPEST_DEFINITION}"
    own = len(msgspec.json.encode(definition))
    if own > LARGEST_DEFINITION or size + own > LARGEST_LISTING:
        return f"its definition is too large ({own} bytes)"
    return ""


def _deeper_than(value: Any, most: int) -> bool:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > most:
            return True
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return False
