"""Common fields of every event about a server."""

from time import time
from typing import Any

SCOPE = "default"  # events about servers concern no customer


def about_server(name: str, what: str) -> dict[str, Any]:
    """Return the first fields of the event that `what` happened to a server now."""
    at = time()
    return {"id": f"{name}.{what}.{at:.6f}", "at": at, "customer": SCOPE, "server": name}
