"""Names of entries in the bucket tb_pins."""

import re
from typing import Any

NAMED = ("tools", "prompts")  # kinds of entries that agents select by a name
INSTRUCTIONS = "instructions"  # kind and name of a server's own instructions
RESOURCES = "resources"
PINNED = (*NAMED, RESOURCES, "templates")  # kinds of a listing whose definitions are pinned
KINDS = (*PINNED, INSTRUCTIONS)
# The MCP methods that use the entries of each kind.
METHODS = {
    "tools": ("tools/call",),
    "prompts": ("prompts/get", "completion/complete"),
    "resources": ("resources/read", "resources/subscribe"),
    "templates": ("completion/complete",),
    INSTRUCTIONS: (),
}
FIRST = "first"  # kind of the entry with a server's first listing

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def pin_key(kind: str, server: str, name: str) -> str:
    """Return the key of a definition's entry. Different names have different keys."""
    return f"{kind}.{server}.{_UNSAFE.sub(_escaped, name)}"


def pinned_part(kind: str, definition: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a definition that its digest covers.

    Of a resource, the size and the time of the last change are left out: they belong to its
    content.
    """
    if kind != "resources" or not definition.keys() & {"size", "annotations"}:
        return definition
    part = {name: value for name, value in definition.items() if name != "size"}
    annotations = part.get("annotations")
    if isinstance(annotations, dict) and "lastModified" in annotations:
        kept = {name: value for name, value in annotations.items() if name != "lastModified"}
        part["annotations"] = kept
    return part


def first_key(server: str) -> str:
    """Return the key of the entry with a server's first listing."""
    return f"{FIRST}.{server}"


def server_of(key: str) -> str:
    """Return the server that the key of an entry contains."""
    return key.split(".")[1]


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
