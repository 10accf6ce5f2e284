"""A bus in memory for requests to plugins, whose requests end as a test says."""

import json
from typing import Any


class ScriptedBus:
    """Requests end with `end`, after as many times without a program as `absent` says."""

    def __init__(self) -> None:
        self.absent = 0
        self.end: Exception | bytes = TimeoutError()
        self.max_bytes = 4096
        self.requests: list[tuple[str, dict[str, Any]]] = []

    async def request(self, subject: str, payload: bytes, _seconds: float) -> bytes:
        """Return the answer."""
        self.requests.append((subject, json.loads(payload)))
        if self.absent:
            self.absent -= 1
            raise LookupError
        if isinstance(self.end, Exception):
            raise self.end
        return self.end
