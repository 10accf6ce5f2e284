"""Virtual files with the stubs of tools: one per server and one per tool."""

from collections.abc import Iterator

from toolbus_codemode.catalog.examples import example_lines, may_write
from toolbus_codemode.catalog.namespace import Tool, ToolNamespace
from toolbus_codemode.catalog.path_errors import missing_stub, missing_tool
from toolbus_codemode.catalog.signatures import signature, summary_of
from toolbus_common.errors import InvalidError

SUFFIX = ".pyi"
MAX_LINES = 400
WHOLE = 100  # a file with at most this number of lines is returned whole


def tree(namespace: ToolNamespace, server: str = "") -> str:
    """List the files of all servers, or of one server's tools, and sample calls of them."""
    if server:
        functions = _functions(namespace, server, listing=True)
        files = [f"{tool.space}/{tool.function}{SUFFIX}" for tool in functions]
        return "\n".join([*files, *example_lines(functions)])
    lines = [
        f"{space}{SUFFIX}  # {_count(len(functions))}"
        for space, functions in namespace.spaces.items()
    ]
    first = [min(functions.values(), key=may_write) for functions in namespace.spaces.values()]
    return "\n".join([*lines, *example_lines(first, 2)]) or "(no tools)"


def read(namespace: ToolNamespace, name: str, start: int = 1, end: int | None = None) -> str:
    """Return the lines `start` to `end` of a file. Raises `InvalidError`.

    Line numbers begin with 1, and `end` is included. At most `MAX_LINES` lines are returned. A file
    of at most `WHOLE` lines is returned whole: models fill in ranges before they know the length.
    """
    lines = list(_lines(namespace, name))
    if len(lines) <= WHOLE:
        return "\n".join(lines)
    last = min(len(lines) if end is None else end, start + MAX_LINES - 1)
    if start < 1 or last < start or start > len(lines):
        raise InvalidError(f"{name} has lines 1 to {len(lines)}; request lines in that range.")
    shown = lines[start - 1 : last]
    if start + len(shown) - 1 < len(lines):
        shown.append(f"# … {len(lines) - last} more lines; read on with startLine={last + 1}")
    return "\n".join(shown)


def stub(tool: Tool, name: str = "") -> str:
    """Return a tool's signature and the first sentence of its description on one line."""
    summary = summary_of(tool.description)
    shown = signature(name or tool.function, tool.schema, tool.definition.get("outputSchema"))
    return shown + (f"  # {summary}" if summary else "")


def _lines(namespace: ToolNamespace, name: str) -> Iterator[str]:
    path = name.removeprefix("servers/").removesuffix(SUFFIX).strip("/")
    space, separator, function = path.partition("/")
    functions = _functions(namespace, space, name)
    if separator:
        functions = [tool for tool in functions if function in (tool.function, tool.name)]
        if not functions:
            raise InvalidError(missing_tool(namespace, name, space, function))
    yield f"# call as {functions[0].space}.<function>(name=value)"
    yield from example_lines(functions)
    for tool in functions:
        yield stub(tool)


def _functions(
    namespace: ToolNamespace, space: str, name: str = "", *, listing: bool = False
) -> list[Tool]:
    """Return a server's tools. Raises `InvalidError`, which quotes the file `name`."""
    wanted = space.removesuffix(SUFFIX)
    found = [tool for tool in namespace.tools() if wanted in (tool.space, tool.server)]
    if not found:
        raise InvalidError(missing_stub(namespace, name or space, listing=listing))
    return found


def _count(number: int) -> str:
    return "1 tool" if number == 1 else f"{number} tools"
