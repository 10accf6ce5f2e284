"""How much of a call's content an event records: all, redacted, or a digest. Pure."""

from collections.abc import Iterable

import msgspec

from toolbus_common.config.access.levels import Content
from toolbus_common.privacy.redaction import redacted

LARGEST = 64 * 1024  # bytes
CUT = "…"  # marks text that was cut
_STRICTEST_FIRST: tuple[Content, ...] = ("digest", "redacted", "full")


def strictest(settings: Iterable[Content | None]) -> Content:
    """Return the strictest of the configured values; `digest` if none is configured."""
    configured = set(settings)
    return next((each for each in _STRICTEST_FIRST if each in configured), "digest")


def recorded(text: bytes, content: Content | str) -> str:
    """Return JSON in the form that an event stores: truncated and marked if long.

    Empty if not recorded.
    """
    if content == "full":
        if len(text) <= LARGEST:
            return text.decode("utf-8", "replace")
        return text[:LARGEST].decode("utf-8", "ignore") + CUT
    if content == "redacted":
        return redacted(text) or CUT  # an incomplete document cannot be redacted
    return ""


def recorded_words(words: str, content: Content | str) -> str:
    """Return plain text in the form that an event stores (see `recorded`)."""
    stored = recorded(msgspec.json.encode(words), content)
    return stored if not stored or stored.endswith(CUT) else msgspec.json.decode(stored, type=str)
