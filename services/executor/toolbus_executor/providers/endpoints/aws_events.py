"""Events of a stream in AWS's binary form (`application/vnd.amazon.eventstream`)."""

import struct
from collections.abc import Iterator
from typing import Any

from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.providers.endpoints.libraries import library

LARGEST_EVENT = 6 * 1024 * 1024  # bytes


class AwsEvents:
    """Parser of the pieces of a stream. botocore verifies the checksums."""

    def __init__(self) -> None:
        self._buffer: Any = library("botocore.eventstream", "aws").EventStreamBuffer()
        self._errors = library("botocore.eventstream", "aws").ParserError
        self._pending = 0  # bytes of an incomplete event

    def feed(self, piece: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield the type and the payload of each complete event.

        Raises `UpstreamInvalidError` for an invalid stream, and for an event that is too large.
        """
        self._pending += len(piece)
        try:
            self._buffer.add_data(piece)
            for event in self._buffer:
                self._pending -= event.prelude.total_length
                yield _type_of(event.headers), event.payload
        except (self._errors, struct.error, ValueError, TypeError, KeyError, IndexError) as error:
            raise UpstreamInvalidError(
                f"The upstream sent an invalid event: {type(error).__name__}. Check the provider's "
                "'url' and 'kind'."
            ) from error
        if self._pending > LARGEST_EVENT:
            raise UpstreamInvalidError(
                f"The upstream's event exceeds {LARGEST_EVENT} bytes. Request a shorter response."
            )


def _type_of(headers: dict[str, Any]) -> str:
    """Return the type of an event or an exception; `exception` for an error without a type."""
    for name in (":exception-type", ":event-type"):
        if isinstance(found := headers.get(name), str):
            return found
    return "exception" if headers.get(":message-type") in ("exception", "error") else ""
