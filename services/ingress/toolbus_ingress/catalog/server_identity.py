"""The identity that an endpoint reports: the gateway's, or the server's at a server's endpoint."""

from typing import Any, NamedTuple

from toolbus_common import VERSION as RELEASE
from toolbus_common.contracts import ROUTED_EXTENSIONS, Listing, ProtocolFamily
from toolbus_ingress.protocol_versions import TASKS

GATEWAY = {"name": "toolbus", "version": RELEASE}
INSTRUCTIONS = (
    "Tools of several servers behind one gateway; each is named server__tool. "
    "Calls are checked, priced and recorded; an error explains how to react."
)
_LISTS = ("tools", "prompts", "resources")
_LIST_FLAGS = ("listChanged", "subscribe")
_OTHER_CAPABILITIES = ("completions", "logging")


class ServerIdentity(NamedTuple):
    """The capabilities, instructions and server info of one server, in one protocol family."""

    family: str
    capabilities: dict[str, Any]
    instructions: str
    info: dict[str, Any]


def server_identity(listing: Listing, family: ProtocolFamily) -> ServerIdentity:
    """Return a server's identity for callers of `family`. The server's family may differ."""
    handshake = listing.handshake
    if family is ProtocolFamily.LEGACY and handshake is not None:
        return ServerIdentity(
            "legacy", handshake.capabilities, handshake.instructions, handshake.server_info
        )
    return ServerIdentity(
        listing.family, listing.capabilities, listing.instructions, listing.server_info
    )


def endpoint_identity(
    listings: list[Listing], family: ProtocolFamily, server: str
) -> dict[str, Any]:
    """Return the capabilities, instructions and server info of an endpoint.

    `server` is empty for the shared endpoint. `listings` are the listings with at least one entry
    that the caller sees.
    """
    if not server or not listings:
        identity = {"capabilities": capabilities(listings, family), "instructions": INSTRUCTIONS}
        return identity | {"serverInfo": GATEWAY}
    own = server_identity(listings[0], family)
    identity = {
        "capabilities": _own_capabilities(own, listings[0], family),
        "serverInfo": own.info or GATEWAY,
    }
    return identity | ({"instructions": own.instructions} if own.instructions else {})


def capabilities(listings: list[Listing], family: ProtocolFamily) -> dict[str, Any]:
    """Return the capabilities that at least one server declares and the gateway can route."""
    identities = [server_identity(listing, family) for listing in listings]
    declared: dict[str, Any] = {}
    for identity in identities:
        declared = {**identity.capabilities, **declared}
    result: dict[str, Any] = {"tools": {"listChanged": True}}
    if "prompts" in declared:
        result["prompts"] = {"listChanged": True}
    if "resources" in declared:
        watched = any(
            _capability(identity, "resources").get("subscribe") is True for identity in identities
        )
        result["resources"] = {"listChanged": True} | ({"subscribe": True} if watched else {})
    result |= {name: {} for name in _OTHER_CAPABILITIES if name in declared}
    if family is ProtocolFamily.LEGACY and any(
        identity.family == "legacy" for identity in identities
    ):
        result["logging"] = {}  # such servers may log without declaring it
    return result | _extensions_or_tasks(identities, family)


def decides_tasks(identity: ServerIdentity) -> bool:
    """Return whether a server decides itself which calls become tasks (MCP 2026-07-28)."""
    return identity.family == "modern" and TASKS in _capability(identity, "extensions")


def _own_capabilities(
    identity: ServerIdentity, listing: Listing, family: ProtocolFamily
) -> dict[str, Any]:
    """Return the capabilities of one server that the gateway passes on."""
    result: dict[str, Any] = {}
    for name in _LISTS:
        if name in identity.capabilities or getattr(listing, name):
            declared = _capability(identity, name)
            result[name] = {
                each: declared[each] for each in _LIST_FLAGS if isinstance(declared.get(each), bool)
            }
    result |= {name: {} for name in _OTHER_CAPABILITIES if name in identity.capabilities}
    return result | _extensions_or_tasks([identity], family)


def _extensions_or_tasks(
    identities: list[ServerIdentity], family: ProtocolFamily
) -> dict[str, Any]:
    """Return the capability `extensions` for stateless callers, or `tasks` for other callers."""
    extensions: dict[str, Any] = {}
    for identity in identities:
        own = _capability(identity, "extensions")
        extensions |= {name: own[name] for name in ROUTED_EXTENSIONS if name in own}
        if _runs_tasks(identity):
            extensions.setdefault(TASKS, {})
    if family is ProtocolFamily.MODERN:
        return {"extensions": extensions} if extensions else {}
    tasks: dict[str, Any] = {"cancel": {}, "requests": {"tools": {"call": {}}}}
    return (
        {"tasks": tasks}
        if any(decides_tasks(each) or _runs_tasks(each) for each in identities)
        else {}
    )


def _runs_tasks(identity: ServerIdentity) -> bool:
    """Return whether a server runs a tool call as a task on request (MCP 2025-11-25)."""
    found: Any = identity.capabilities
    for step in ("tasks", "requests", "tools", "call"):
        found = found.get(step) if isinstance(found, dict) else None
    return identity.family == "legacy" and isinstance(found, dict)


def _capability(identity: ServerIdentity, name: str) -> dict[str, Any]:
    found = identity.capabilities.get(name)
    return found if isinstance(found, dict) else {}
