"""The tools as a tree of small files: what there is, and the stubs of one server or one tool."""

from collections.abc import Iterator

from toolbus_codemode.catalog.namespace import Shelf, Tool
from toolbus_codemode.catalog.signatures import first_sentence, signature
from toolbus_common.errors import InvalidError

SUFFIX = ".pyi"
MOST_LINES = 400


def tree(shelf: Shelf, server: str = "") -> str:
    """The files: one a server, or with `server` one a tool of it."""
    if server:
        functions = _functions(shelf, server)
        return "\n".join(f"{tool.space}/{tool.function}{SUFFIX}" for tool in functions)
    lines = [
        f"{space}{SUFFIX}  # {_count(len(functions))}" for space, functions in shelf.spaces.items()
    ]
    return "\n".join(lines) or "(no tools)"


def read(shelf: Shelf, name: str, start: int = 1, end: int | None = None) -> str:
    """Lines of a file, numbered from 1, both ends included. Raises `InvalidError`."""
    lines = list(_lines(shelf, name))
    last = min(len(lines) if end is None else end, start + MOST_LINES - 1)
    if start < 1 or last < start or start > len(lines):
        raise InvalidError(f"{name} has lines 1 to {len(lines)}; ask for some of them.")
    shown = lines[start - 1 : last]
    if start + len(shown) - 1 < len(lines):
        shown.append(
            f"# … {len(lines) - start - len(shown) + 1} more lines; read on from {last + 1}"
        )
    return "\n".join(shown)


def stub(tool: Tool, name: str = "") -> str:
    """One tool on one line: its signature, and the first sentence of what it does."""
    said = first_sentence(tool.description)
    shown = signature(name or tool.function, tool.schema, tool.definition.get("outputSchema"))
    return shown + (f"  # {said}" if said else "")


def _lines(shelf: Shelf, name: str) -> Iterator[str]:
    path = name.removeprefix("servers/").removesuffix(SUFFIX).strip("/")
    space, separator, function = path.partition("/")
    functions = _functions(shelf, space)
    if separator:
        functions = [tool for tool in functions if function in (tool.function, tool.name)]
        if not functions:
            near = ", ".join(shelf.near(space, function)) or "none"
            raise InvalidError(f"There is no {name}; the nearest tools are {near}.")
    yield f"# call as {functions[0].space}.<function>(…)"
    for tool in functions:
        yield stub(tool)


def _functions(shelf: Shelf, space: str) -> list[Tool]:
    wanted = space.removesuffix(SUFFIX)
    found = [tool for tool in shelf.tools() if wanted in (tool.space, tool.server)]
    if not found:
        known = ", ".join(shelf.spaces) or "none"
        raise InvalidError(f"There is no {space}{SUFFIX}; the servers are {known}.")
    return found


def _count(number: int) -> str:
    return "1 tool" if number == 1 else f"{number} tools"
