"""What an endpoint says of itself: that of all servers as the gateway, one server's as it does."""

from typing import Any, NamedTuple

from toolbus_common import VERSION as RELEASE
from toolbus_common.contracts import ROUTED_EXTENSIONS, Listing, ProtocolFamily
from toolbus_ingress.protocol_versions import TASKS

GATEWAY = {"name": "toolbus", "version": RELEASE}
INSTRUCTIONS = (
    "Tools of several servers behind one gateway; each is named server__tool. "
    "Calls are checked, priced and recorded; a refusal says what to do about it."
)
_LISTS = ("tools", "prompts", "resources")
_OF_LISTS = ("listChanged", "subscribe")
_BESIDE = ("completions", "logging")


class Said(NamedTuple):
    """What one server says of itself to callers of one family."""

    family: str
    capabilities: dict[str, Any]
    instructions: str
    info: dict[str, Any]


def said_by(listing: Listing, family: ProtocolFamily) -> Said:
    """What a server says of itself in the family that a caller of this family is served in."""
    told = listing.handshake
    if family is ProtocolFamily.LEGACY and told is not None:
        return Said("legacy", told.capabilities, told.instructions, told.server_info)
    return Said(listing.family, listing.capabilities, listing.instructions, listing.server_info)


def introduced(listings: list[Listing], family: ProtocolFamily, server: str) -> dict[str, Any]:
    """The capabilities, instructions and name told on the endpoint of `server`, or of all.

    A server of which the caller sees nothing is not in `listings`, and says nothing here.
    """
    if not server or not listings:
        told = {"capabilities": capabilities(listings, family), "instructions": INSTRUCTIONS}
        return told | {"serverInfo": GATEWAY}
    said = said_by(listings[0], family)
    told = {"capabilities": _own(said, listings[0], family), "serverInfo": said.info or GATEWAY}
    return told | ({"instructions": said.instructions} if said.instructions else {})


def capabilities(listings: list[Listing], family: ProtocolFamily) -> dict[str, Any]:
    """What is told to be there: what at least one of these servers declared, and we can route."""
    every = [said_by(listing, family) for listing in listings]
    declared: dict[str, Any] = {}
    for said in every:
        declared = {**said.capabilities, **declared}
    told: dict[str, Any] = {"tools": {"listChanged": True}}
    if "prompts" in declared:
        told["prompts"] = {"listChanged": True}
    if "resources" in declared:
        watched = any(_of(said, "resources").get("subscribe") is True for said in every)
        told["resources"] = {"listChanged": True} | ({"subscribe": True} if watched else {})
    told |= {name: {} for name in _BESIDE if name in declared}
    if family is ProtocolFamily.LEGACY and any(said.family == "legacy" for said in every):
        told["logging"] = {}  # they may log unasked, whether they declare it or not
    return told | _beside(every, family)


def decides(said: Said) -> bool:
    """Whether a server decides by itself which calls become tasks (MCP 2026-07-28)."""
    return said.family == "modern" and TASKS in _of(said, "extensions")


def _own(said: Said, listing: Listing, family: ProtocolFamily) -> dict[str, Any]:
    """What one server declared, as far as it is passed through."""
    told: dict[str, Any] = {}
    for name in _LISTS:
        if name in said.capabilities or getattr(listing, name):
            own = _of(said, name)
            told[name] = {each: own[each] for each in _OF_LISTS if isinstance(own.get(each), bool)}
    told |= {name: {} for name in _BESIDE if name in said.capabilities}
    return told | _beside([said], family)


def _beside(every: list[Said], family: ProtocolFamily) -> dict[str, Any]:
    """What a caller of one family is told beside the capabilities that all families have."""
    extensions: dict[str, Any] = {}
    for said in every:
        own = _of(said, "extensions")
        extensions |= {name: own[name] for name in ROUTED_EXTENSIONS if name in own}
        if _begins(said):
            extensions.setdefault(TASKS, {})
    if family is ProtocolFamily.MODERN:
        return {"extensions": extensions} if extensions else {}
    tasks: dict[str, Any] = {"cancel": {}, "requests": {"tools": {"call": {}}}}
    return {"tasks": tasks} if any(decides(each) or _begins(each) for each in every) else {}


def _begins(said: Said) -> bool:
    """Whether a server makes a tool's call a task if it is told to (MCP 2025-11-25)."""
    found: Any = said.capabilities
    for step in ("tasks", "requests", "tools", "call"):
        found = found.get(step) if isinstance(found, dict) else None
    return said.family == "legacy" and isinstance(found, dict)


def _of(said: Said, name: str) -> dict[str, Any]:
    found = said.capabilities.get(name)
    return found if isinstance(found, dict) else {}
