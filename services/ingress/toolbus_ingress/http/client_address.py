"""The address of the client that sent a request."""

from collections.abc import Mapping
from typing import Any


def client_address(scope: Mapping[str, Any]) -> str:
    """Return the IP address of the client; empty if it is unknown."""
    client = scope.get("client")
    return str(client[0]) if client else ""
