"""What an agent declared it can do, in the three forms the executor needs it in."""

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
_MOST_FORMS = 512  # clients differ in little: a few forms are declared over and over


@lru_cache(_MOST_FORMS)
def routed(raw: str) -> bytes:
    """The capabilities told to a modern server: those whose messages can be brought back."""
    told = _decoded(raw)
    kept = {name: told[name] for name in _CORE if isinstance(told.get(name), dict)}
    extensions = told.get("extensions")
    if isinstance(extensions, dict):
        known = {name: extensions[name] for name in ROUTED_EXTENSIONS if name in extensions}
        if known:
            kept["extensions"] = known
    return msgspec.json.encode(kept)


@lru_cache(_MOST_FORMS)
def kinds_of(raw: str) -> Kinds:
    """The kinds of questions a client can be asked."""
    told = _decoded(raw)
    found = set()
    elicitation = told.get("elicitation")
    if isinstance(elicitation, dict):
        found |= {FORM} if not elicitation else {FORM, URL} & elicitation.keys()
    sampling = told.get("sampling")
    if isinstance(sampling, dict):
        found |= {SAMPLING, SAMPLING_TOOLS} if "tools" in sampling else {SAMPLING}
    roots = told.get("roots")
    if isinstance(roots, dict):
        found |= {ROOTS, ROOTS_CHANGE} if roots.get("listChanged") is True else {ROOTS}
    return frozenset(found)


@lru_cache(_MOST_FORMS)
def takes_tasks(raw: str) -> bool:
    """Whether a client declared that calls of its may become tasks."""
    extensions = _decoded(raw).get("extensions")
    return isinstance(extensions, dict) and TASKS in extensions


@lru_cache(_MOST_FORMS)
def with_tasks(raw: str) -> str:
    """The same capabilities and tasks, which the executor then drives itself."""
    told = _decoded(raw)
    extensions = told.get("extensions")
    told["extensions"] = {**(extensions if isinstance(extensions, dict) else {}), TASKS: {}}
    return msgspec.json.encode(told).decode()


def declared(kinds: Kinds) -> dict[str, Any]:
    """The capabilities of a handshake for these kinds."""
    told: dict[str, Any] = {}
    if kinds & {FORM, URL}:
        told["elicitation"] = {kind: {} for kind in (FORM, URL) if kind in kinds}
    if SAMPLING in kinds:
        told["sampling"] = {"tools": {}} if SAMPLING_TOOLS in kinds else {}
    if ROOTS in kinds:
        told["roots"] = {"listChanged": True} if ROOTS_CHANGE in kinds else {}
    return told


def kind_asked(method: str, params: bytes) -> str | None:
    """The kind of a server's question; None for one nobody here can bring to an agent."""
    if method == "roots/list":
        return ROOTS
    if method not in ("elicitation/create", "sampling/createMessage"):
        return None
    try:
        told = msgspec.json.decode(params)
    except msgspec.DecodeError:
        return None
    if not isinstance(told, dict):
        return None
    if method == "sampling/createMessage":
        return SAMPLING_TOOLS if told.get("tools") else SAMPLING
    mode = told.get("mode", FORM)
    return mode if mode in (FORM, URL) else None


def _decoded(raw: str) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return {}
    return told if isinstance(told, dict) else {}
