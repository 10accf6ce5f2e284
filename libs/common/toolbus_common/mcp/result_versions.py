"""Conversion of a tool's result between protocol families, member by member."""

import msgspec

Members = dict[str, msgspec.Raw]

ONLY_MODERN = ("resultType", "ttlMs", "cacheScope")
_COMPLETE = msgspec.Raw(b'"complete"')


def as_legacy(members: Members) -> Members:
    """Return a legacy result, without members of the stateless family.

    Structured content is removed unless it is an object.
    """
    structured = bytes(members.get("structuredContent", b""))
    odd = bool(structured) and structured[:1] != b"{"
    dropped = (*ONLY_MODERN, "structuredContent") if odd else ONLY_MODERN
    return {name: value for name, value in members.items() if name not in dropped}


def as_modern(members: Members) -> Members:
    """Return a result of the stateless family, marked as complete."""
    return {"resultType": _COMPLETE, **members}
