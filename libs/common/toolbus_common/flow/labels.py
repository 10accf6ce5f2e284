"""The labels of tools: declared, or guessed from the server's kind and the tool's annotations.

A guess about reading errs towards more labels, because reading alone is never stopped. A guess
about writing is stricter than the annotations only where they are missing: a tool that is not
declared read-only sends data outside, unless its server has no network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from toolbus_common.config import FlowLabels, Reads, Server, Writes
from toolbus_common.contracts import TOOLS_CALL, Listing

PRIVATE: Reads = "private"
UNTRUSTED: Reads = "untrusted"
OUTSIDE: Writes = "outside"
_UNKNOWN: tuple[Reads, ...] = (PRIVATE, UNTRUSTED)
_OFFLINE = ("none", "loopback")
_UPDATE = "tasks/update"
_TASKS = frozenset({"tasks/get", "tasks/result", _UPDATE})
_OF_SERVER = frozenset(
    {"resources/read", "resources/subscribe", "prompts/get", "completion/complete"}
)


class Labels(Struct, frozen=True):
    """What a call reads and where it writes. `guessed` names the labels that are not declared."""

    reads: tuple[Reads, ...] = ()
    writes: Writes = "nothing"
    guessed: tuple[str, ...] = ()

    @property
    def reads_private(self) -> bool:
        """Whether the result can contain private data."""
        return PRIVATE in self.reads

    @property
    def reads_untrusted(self) -> bool:
        """Whether the result can contain what an untrusted person wrote."""
        return UNTRUSTED in self.reads

    @property
    def is_sink(self) -> bool:
        """Whether the call sends data outside."""
        return self.writes == OUTSIDE

    @property
    def matter(self) -> bool:
        """Whether the call can be part of a dangerous combination."""
        return self.is_sink or self.reads_private or self.reads_untrusted

    @property
    def shown(self) -> tuple[str, str]:
        """What the call reads and where it writes, for people; a `?` marks a guess."""
        reads, writes = ", ".join(self.reads) or "nothing", self.writes
        guesses = ["?" if name in self.guessed else "" for name in ("reads", "writes")]
        return reads + guesses[0], writes + guesses[1]


NO_LABELS = Labels()


def labels_of_tool(server: Server | None, tool: str, definition: Mapping[str, Any]) -> Labels:
    """Return the labels of a tool with this definition."""
    view = server.tools.get(tool) if server is not None else None
    declared = [each for each in (view, server) if each is not None]
    reads, writes = _guess(server, definition.get("annotations"))
    return _declared(declared, reads, writes)


def labels_of_call(
    server: Server | None, method: str, tool: str, listing: Listing | None
) -> Labels:
    """Return the labels of a call of a server by its method and target.

    A read of a resource, a prompt, or a completion of their arguments has the labels of its server.
    It is a sink only if the server is declared to write outside, because the URI or the arguments
    are then sent outside. A task can belong to any tool of the server. A request about a task
    therefore reads everything that any of these tools reads, and further input for a task
    (`tasks/update`) is a sink if any of these tools is a sink.
    """
    tools = listing.tools if listing is not None else ()
    if method == TOOLS_CALL:
        definition = next((each.as_sent for each in tools if each.name == tool), {})
        return labels_of_tool(server, tool, definition)
    if method in _OF_SERVER:
        declared = [server] if server is not None else []
        return _declared(declared, _UNKNOWN, "nothing")
    if method in _TASKS:
        found = [labels_of_tool(server, each.name, each.as_sent) for each in tools]
        reads = tuple(label for label in _UNKNOWN if any(label in each.reads for each in found))
        sends = method == _UPDATE and (not found or any(each.is_sink for each in found))
        return Labels(reads if found else _UNKNOWN, OUTSIDE if sends else "nothing")
    return NO_LABELS


def _declared(declared: Sequence[FlowLabels], reads: tuple[Reads, ...], writes: Writes) -> Labels:
    """Return each label from the first of `declared` that has it, otherwise the guessed label."""
    guessed = []
    own_reads = next((each.reads for each in declared if each.reads is not None), None)
    own_writes = next((each.writes for each in declared if each.writes is not None), None)
    if own_reads is None:
        guessed.append("reads")
    if own_writes is None:
        guessed.append("writes")
    return Labels(
        reads if own_reads is None else own_reads,
        writes if own_writes is None else own_writes,
        tuple(guessed),
    )


def _guess(server: Server | None, annotations: Any) -> tuple[tuple[Reads, ...], Writes]:
    hints = annotations if isinstance(annotations, dict) else {}
    read_only, open_world = hints.get("readOnlyHint") is True, hints.get("openWorldHint")
    if server is not None and _is_offline(server):
        open_world = False  # the sandbox enforces it, whatever the server says
    if open_world is True:  # its arguments, such as a search or a URL, are sent outside
        return (UNTRUSTED,), OUTSIDE
    if open_world is False:
        return (PRIVATE,), "nothing" if read_only else "inside"
    return _UNKNOWN, "nothing" if read_only else OUTSIDE


def _is_offline(server: Server) -> bool:
    return server.is_process and server.namespaces and server.network in _OFFLINE
