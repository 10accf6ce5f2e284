"""Names of entries in the bucket tb_pins."""

import re

PINNED = ("tools", "prompts")  # kinds of a listing whose definitions are pinned
# The MCP methods that use the entries of each kind.
METHODS = {"tools": ("tools/call",), "prompts": ("prompts/get", "completion/complete")}
FIRST = "first"  # kind of the entry with a server's first listing

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def pin_key(kind: str, server: str, name: str) -> str:
    """Return the key of a tool's or prompt's entry. Different names have different keys."""
    return f"{kind}.{server}.{_UNSAFE.sub(_escaped, name)}"


def first_key(server: str) -> str:
    """Return the key of the entry with a server's first listing."""
    return f"{FIRST}.{server}"


def server_of(key: str) -> str:
    """Return the server that the key of an entry contains."""
    return key.split(".")[1]


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
