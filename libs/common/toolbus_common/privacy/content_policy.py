"""Policy for the content of calls in events: full, redacted, or only a digest."""

from collections.abc import Iterable

import msgspec

from toolbus_common.config.access.levels import Content
from toolbus_common.privacy.redaction import redacted

LARGEST = 64 * 1024  # bytes
CUT = "…"  # marks truncated text
_STRICTEST_FIRST: tuple[Content, ...] = ("digest", "redacted", "full")


def strictest(settings: Iterable[Content | None]) -> Content:
    """Return the strictest of these values; `digest` if no value is set."""
    configured = set(settings)
    return next((each for each in _STRICTEST_FIRST if each in configured), "digest")


def recorded(text: bytes, content: Content | str) -> str:
    """Return JSON in the form that an event stores; empty if the content is not recorded.

    Text that is too long is truncated, and `CUT` is appended.
    """
    if content == "full":
        if len(text) <= LARGEST:
            return text.decode("utf-8", "replace")
        return text[:LARGEST].decode("utf-8", "ignore") + CUT
    if content == "redacted":
        return redacted(text) or CUT  # an incomplete document cannot be redacted
    return ""


def recorded_words(words: str, content: Content | str) -> str:
    """Return plain text in the form that an event stores; see `recorded`."""
    stored = recorded(msgspec.json.encode(words), content)
    return stored if not stored or stored.endswith(CUT) else msgspec.json.decode(stored, type=str)
