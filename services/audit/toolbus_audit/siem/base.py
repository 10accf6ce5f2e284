"""What every way to a SIEM has in common."""

from collections.abc import Sequence
from typing import Protocol

from toolbus_audit.siem.records import Record


class SinkError(Exception):
    """Nothing was taken for sure: try again, not before so many seconds. The sentence says why."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Outlet(Protocol):
    """One way to one sink. What it was given and is not `taken` may have to be given again."""

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Tell of these; which of them the sink refuses for good. Raises `SinkError`."""

    def sent(self, sequence: int) -> None:
        """Note that everything up to this message was sent."""

    def taken(self) -> int:
        """Everything up to this message was taken. Raises `SinkError` when the way is lost."""

    async def close(self) -> None:
        """Leave."""
