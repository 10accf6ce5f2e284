"""Transport of a SIEM sink: the protocol that HTTP and syslog implement."""

from collections.abc import Sequence
from typing import Protocol

from toolbus_audit.siem.records import Record


class SinkError(Exception):
    """Delivery is not confirmed.

    Retry after `retry_after` seconds or later. The message is the reason.
    """

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Transport(Protocol):
    """Connection to one sink. Records that `delivered_until` does not cover may be sent again."""

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Send records and return the records that the sink rejects permanently.

        Raises `SinkError`.
        """

    def mark_sent(self, sequence: int) -> None:
        """Record that all messages up to `sequence` were sent."""

    def delivered_until(self) -> int:
        """Return the sequence up to which all messages are delivered.

        Raises `SinkError` if the connection is lost.
        """

    async def close(self) -> None:
        """Close the connection."""
