"""A tool's result in the form of one family, member by member."""

import msgspec

Members = dict[str, msgspec.Raw]

ONLY_MODERN = ("resultType", "ttlMs", "cacheScope")
_COMPLETE = msgspec.Raw(b'"complete"')


def as_legacy(members: Members) -> Members:
    """Without what only the stateless family knows; structured content was an object before it."""
    structured = bytes(members.get("structuredContent", b""))
    odd = bool(structured) and structured[:1] != b"{"
    dropped = (*ONLY_MODERN, "structuredContent") if odd else ONLY_MODERN
    return {name: value for name, value in members.items() if name not in dropped}


def as_modern(members: Members) -> Members:
    """With the word that it is whole."""
    return {"resultType": _COMPLETE, **members}
