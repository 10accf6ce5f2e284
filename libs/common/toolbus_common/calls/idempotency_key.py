"""Idempotency keys as callers give them: short, and read by nobody."""

from typing import Any

from toolbus_common.errors import InvalidError

LONGEST = 255  # characters


def checked_key(told: Any) -> str:
    """The key, or empty for none. Raises `InvalidError` for what is no key."""
    if told is None:
        return ""
    if not isinstance(told, str) or not 1 <= len(told) <= LONGEST:
        raise InvalidError(f"An idempotency key is a string of 1 to {LONGEST} characters.")
    return told
