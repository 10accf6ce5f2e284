"""The built-in server of Toolbus: tools that search the catalog and run programs."""

from enum import StrEnum

BUILT_IN = "toolbus"  # no configured server may have this name

LIST, READ, DOCS, EXECUTE, SEARCH = (
    "listToolFiles", "readToolFile", "getToolDocs", "executeToolCode", "searchTools",
)  # fmt: skip


class Mode(StrEnum):
    """The way in which a caller uses tools: directly, through programs, or after a search."""

    TOOLS = "tools"
    CODE = "code"
    SEARCH = "search"


SHOWN: dict[Mode, frozenset[str]] = {
    Mode.TOOLS: frozenset(),
    Mode.CODE: frozenset({LIST, READ, DOCS, EXECUTE, SEARCH}),
    Mode.SEARCH: frozenset({SEARCH, DOCS}),
}
