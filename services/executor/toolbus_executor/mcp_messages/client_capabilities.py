"""Client capabilities in the three forms that the executor needs."""

from functools import lru_cache
from typing import Any

import msgspec

from toolbus_common.contracts import ROUTED_EXTENSIONS

FORM, URL, SAMPLING, SAMPLING_TOOLS, ROOTS = "form", "url", "sampling", "sampling.tools", "roots"
ROOTS_CHANGE = "roots.listChanged"
Kinds = frozenset[str]
EVERYTHING: Kinds = frozenset({FORM, URL, SAMPLING, SAMPLING_TOOLS, ROOTS})
TASKS = "io.modelcontextprotocol/tasks"
_CORE = ("elicitation", "sampling", "roots")
_MAX_FORMS = 512  # clients share a few distinct sets of capabilities


@lru_cache(_MAX_FORMS)
def routed(raw: str) -> bytes:
    """Return the capabilities to send to a modern server.

    These are the client's capabilities whose requests can be routed back to the client.
    """
    capabilities = _decoded(raw)
    routable = {
        name: capabilities[name] for name in _CORE if isinstance(capabilities.get(name), dict)
    }
    extensions = capabilities.get("extensions")
    if isinstance(extensions, dict):
        known = {name: extensions[name] for name in ROUTED_EXTENSIONS if name in extensions}
        if known:
            routable["extensions"] = known
    return msgspec.json.encode(routable)


@lru_cache(_MAX_FORMS)
def kinds_of(raw: str) -> Kinds:
    """Return the kinds of input requests that a client supports."""
    capabilities = _decoded(raw)
    found = set()
    elicitation = capabilities.get("elicitation")
    if isinstance(elicitation, dict):
        found |= {FORM} if not elicitation else {FORM, URL} & elicitation.keys()
    sampling = capabilities.get("sampling")
    if isinstance(sampling, dict):
        found |= {SAMPLING, SAMPLING_TOOLS} if "tools" in sampling else {SAMPLING}
    roots = capabilities.get("roots")
    if isinstance(roots, dict):
        found |= {ROOTS, ROOTS_CHANGE} if roots.get("listChanged") is True else {ROOTS}
    return frozenset(found)


@lru_cache(_MAX_FORMS)
def takes_tasks(raw: str) -> bool:
    """Return whether a client declares that it supports tasks as results of calls."""
    extensions = _decoded(raw).get("extensions")
    return isinstance(extensions, dict) and TASKS in extensions


@lru_cache(_MAX_FORMS)
def with_tasks(raw: str) -> str:
    """Return the capabilities with tasks added. The executor then processes the tasks itself."""
    capabilities = _decoded(raw)
    extensions = capabilities.get("extensions")
    capabilities["extensions"] = {**(extensions if isinstance(extensions, dict) else {}), TASKS: {}}
    return msgspec.json.encode(capabilities).decode()


def declared(kinds: Kinds) -> dict[str, Any]:
    """Return the capabilities to declare in `initialize` for these kinds."""
    capabilities: dict[str, Any] = {}
    if kinds & {FORM, URL}:
        capabilities["elicitation"] = {kind: {} for kind in (FORM, URL) if kind in kinds}
    if SAMPLING in kinds:
        capabilities["sampling"] = {"tools": {}} if SAMPLING_TOOLS in kinds else {}
    if ROOTS in kinds:
        capabilities["roots"] = {"listChanged": True} if ROOTS_CHANGE in kinds else {}
    return capabilities


def request_kind(method: str, params: bytes) -> str | None:
    """Return the kind of a server's request; None if it cannot be routed to a client."""
    if method == "roots/list":
        return ROOTS
    if method not in ("elicitation/create", "sampling/createMessage"):
        return None
    try:
        decoded = msgspec.json.decode(params)
    except msgspec.DecodeError:
        return None
    if not isinstance(decoded, dict):
        return None
    if method == "sampling/createMessage":
        return SAMPLING_TOOLS if decoded.get("tools") else SAMPLING
    mode = decoded.get("mode", FORM)
    return mode if mode in (FORM, URL) else None


def _decoded(raw: str) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
