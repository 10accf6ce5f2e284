"""The one server that is Toolbus itself: tools that read the catalogue and run programs."""

from enum import StrEnum

BUILT_IN = "toolbus"  # no declared server may have this name

LIST, READ, DOCS, EXECUTE, SEARCH = (
    "listToolFiles", "readToolFile", "getToolDocs", "executeToolCode", "searchTools",
)  # fmt: skip


class Mode(StrEnum):
    """How a caller sees tools: each as it is, through programs, or by searching for them."""

    TOOLS = "tools"
    CODE = "code"
    SEARCH = "search"


SHOWN: dict[Mode, frozenset[str]] = {
    Mode.TOOLS: frozenset(),
    Mode.CODE: frozenset({LIST, READ, DOCS, EXECUTE, SEARCH}),
    Mode.SEARCH: frozenset({SEARCH, DOCS}),
}
