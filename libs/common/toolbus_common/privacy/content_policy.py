"""How much of a call's content an event records: all, with secrets struck, or a digest. Pure."""

from collections.abc import Iterable

import msgspec

from toolbus_common.config.access.levels import Content
from toolbus_common.privacy.redaction import redacted

LARGEST = 64 * 1024  # bytes
CUT = "…"  # how what is too long to be kept whole ends
_STRICTEST_FIRST: tuple[Content, ...] = ("digest", "redacted", "full")


def strictest(said: Iterable[Content | None]) -> Content:
    """What everybody who says something allows; nobody having said anything, a digest."""
    told = set(said)
    return next((each for each in _STRICTEST_FIRST if each in told), "digest")


def recorded(text: bytes, content: Content | str) -> str:
    """Return JSON as an event stores it: cut and marked where long, empty where not recorded."""
    if content == "full":
        if len(text) <= LARGEST:
            return text.decode("utf-8", "replace")
        return text[:LARGEST].decode("utf-8", "ignore") + CUT
    if content == "redacted":
        return redacted(text) or CUT  # of half a document nobody knows what must be struck
    return ""


def recorded_words(words: str, content: Content | str) -> str:
    """The same for what is no JSON yet."""
    kept = recorded(msgspec.json.encode(words), content)
    return kept if not kept or kept.endswith(CUT) else msgspec.json.decode(kept, type=str)
