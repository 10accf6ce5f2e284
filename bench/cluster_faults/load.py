"""A load that keeps each of its calls, so that each can be compared with the record."""

from dataclasses import dataclass, field
from typing import Any

from harness.clients.steady_load import Call, Load


@dataclass
class RecordedLoad(Load):
    """A load of unique ids."""

    calls: list[Call] = field(default_factory=list)

    async def answer_of(self, call: Call) -> dict[str, Any]:
        """Keep the call, and return the response to it."""
        self.calls.append(call)
        return await super().answer_of(call)
