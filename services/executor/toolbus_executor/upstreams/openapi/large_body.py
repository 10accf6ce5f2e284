"""An API's answer that is too large to hold: kept as it comes, without the credentials in it."""

from collections.abc import Callable

import msgspec

from toolbus_executor.results.large.json_scanner import Kind
from toolbus_executor.results.large.spill import Spill
from toolbus_executor.results.large.spill_registry import Answering, Spills
from toolbus_executor.transport.http1 import Head

_ERRORS = 400
_LONGEST_MEDIA = 100


class LargeBody(Answering):
    """What becomes of one answer of an API."""

    whole = Kind.TEXT

    def __init__(self, spills: Spills, strike: Callable[[bytes], bytes]) -> None:
        self.spills = spills
        self._strike = strike
        self._spill: Spill | None = None

    def begin(self) -> Spill:
        """Take it from here on."""
        self._spill = super().begin()
        self._spill.strike = self._strike
        return self._spill

    def result(self, head: Head, *, structured: bool) -> bytes | None:
        """The result of the call; None where the answer was not too large, or is an error."""
        if self._spill is None or head.status >= _ERRORS:
            return None
        hole = self._spill.holes[0]
        media = head.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media and media.isascii() and len(media) <= _LONGEST_MEDIA:
            hole.media = media.decode()
        told = {"content": [{"type": "text", "text": hole.name}]}
        # Clients refuse a success without the structure a schema promises, and read an error.
        return msgspec.json.encode(told | ({"isError": True} if structured else {}))
