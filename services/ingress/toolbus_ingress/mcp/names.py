"""What could be the name of a server."""

import re

_SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}")


def is_server_name(name: str) -> bool:
    """Whether a server could be declared under this name."""
    return _SERVER.fullmatch(name) is not None
