"""What every event about a server begins with."""

from time import time
from typing import Any

SCOPE = "default"  # events about servers concern no customer


def about_server(name: str, what: str) -> dict[str, Any]:
    """The first fields of an event that `what` happened to a server just now."""
    at = time()
    return {"id": f"{name}.{what}.{at:.6f}", "at": at, "customer": SCOPE, "server": name}
