"""Transport of a SIEM sink: the protocol that HTTP and syslog implement."""

from collections.abc import Sequence
from typing import Protocol

from toolbus_audit.siem.records import Record


class SinkError(Exception):
    """Delivery is not confirmed; retry, not before `retry_after` seconds. The message says why."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Transport(Protocol):
    """Connection to one sink. Records not covered by `delivered_until` may have to be resent."""

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Send records and return those the sink rejects permanently. Raises `SinkError`."""

    def mark_sent(self, sequence: int) -> None:
        """Record that everything up to this message was sent."""

    def delivered_until(self) -> int:
        """Return up to which message everything is delivered.

        Raises `SinkError` if the connection is lost.
        """

    async def close(self) -> None:
        """Close the connection."""
