"""Where pins are kept: the names of entries in the bucket tb_pins."""

import re

PINNED = ("tools", "prompts")  # the kinds of a listing whose definitions are pinned
# How each kind is used.
METHODS = {"tools": ("tools/call",), "prompts": ("prompts/get", "completion/complete")}
FIRST = "first"  # the kind of the entry that remembers a server's first listing

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def pin_key(kind: str, server: str, name: str) -> str:
    """The entry of one tool or prompt. Different names have different entries."""
    return f"{kind}.{server}.{_UNSAFE.sub(_escaped, name)}"


def first_key(server: str) -> str:
    """The entry of a server's first listing."""
    return f"{FIRST}.{server}"


def server_of(key: str) -> str:
    """The server an entry is about."""
    return key.split(".")[1]


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
