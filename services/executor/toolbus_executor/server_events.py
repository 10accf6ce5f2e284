"""Fields that all events about a server share."""

from time import time
from typing import Any

SCOPE = "default"  # events about servers concern no customer


def about_server(name: str, what: str) -> dict[str, Any]:
    """Return the common fields of an event about a server, with the current time.

    `what` is a part of the event's id.
    """
    at = time()
    return {"id": f"{name}.{what}.{at:.6f}", "at": at, "customer": SCOPE, "server": name}
