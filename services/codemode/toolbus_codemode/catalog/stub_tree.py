"""Virtual files with the stubs of tools: one per server and one per tool."""

from collections.abc import Iterator

from toolbus_codemode.catalog.namespace import Tool, ToolNamespace
from toolbus_codemode.catalog.signatures import signature, summary_of
from toolbus_common.errors import InvalidError

SUFFIX = ".pyi"
MAX_LINES = 400


def tree(namespace: ToolNamespace, server: str = "") -> str:
    """List the files of all servers, or of one server's tools."""
    if server:
        functions = _functions(namespace, server)
        return "\n".join(f"{tool.space}/{tool.function}{SUFFIX}" for tool in functions)
    lines = [
        f"{space}{SUFFIX}  # {_count(len(functions))}"
        for space, functions in namespace.spaces.items()
    ]
    return "\n".join(lines) or "(no tools)"


def read(namespace: ToolNamespace, name: str, start: int = 1, end: int | None = None) -> str:
    """Return the lines `start` to `end` of a file. Raises `InvalidError`.

    Line numbers begin with 1, and `end` is included. At most `MAX_LINES` lines are returned.
    """
    lines = list(_lines(namespace, name))
    last = min(len(lines) if end is None else end, start + MAX_LINES - 1)
    if start < 1 or last < start or start > len(lines):
        raise InvalidError(f"{name} has lines 1 to {len(lines)}; request lines in that range.")
    shown = lines[start - 1 : last]
    if start + len(shown) - 1 < len(lines):
        shown.append(
            f"# … {len(lines) - start - len(shown) + 1} more lines; read on from {last + 1}"
        )
    return "\n".join(shown)


def stub(tool: Tool, name: str = "") -> str:
    """Return a tool's signature and the first sentence of its description on one line."""
    summary = summary_of(tool.description)
    shown = signature(name or tool.function, tool.schema, tool.definition.get("outputSchema"))
    return shown + (f"  # {summary}" if summary else "")


def _lines(namespace: ToolNamespace, name: str) -> Iterator[str]:
    path = name.removeprefix("servers/").removesuffix(SUFFIX).strip("/")
    space, separator, function = path.partition("/")
    functions = _functions(namespace, space)
    if separator:
        functions = [tool for tool in functions if function in (tool.function, tool.name)]
        if not functions:
            near = ", ".join(namespace.near(space, function)) or "none"
            raise InvalidError(f"There is no {name}; the nearest tools are {near}.")
    yield f"# call as {functions[0].space}.<function>(…)"
    for tool in functions:
        yield stub(tool)


def _functions(namespace: ToolNamespace, space: str) -> list[Tool]:
    wanted = space.removesuffix(SUFFIX)
    found = [tool for tool in namespace.tools() if wanted in (tool.space, tool.server)]
    if not found:
        known = ", ".join(namespace.spaces) or "none"
        raise InvalidError(f"There is no {space}{SUFFIX}; the servers are {known}.")
    return found


def _count(number: int) -> str:
    return "1 tool" if number == 1 else f"{number} tools"
