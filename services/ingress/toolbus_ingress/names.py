"""What could be the name of a server, or of a tool."""

import re

_SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}")
_TOOL = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def is_server_name(name: str) -> bool:
    """Whether a server could be declared under this name."""
    return _SERVER.fullmatch(name) is not None


def is_tool_name(name: str) -> bool:
    """Whether a tool could be listed under this name (MCP SEP-986)."""
    return _TOOL.fullmatch(name) is not None
