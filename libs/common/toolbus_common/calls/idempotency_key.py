"""Validation of idempotency keys: short opaque strings."""

from typing import Any

from toolbus_common.errors import InvalidError

LONGEST = 255  # characters


def validated_key(key: Any) -> str:
    """Return the key; empty for None. Raises `InvalidError` for an invalid key."""
    if key is None:
        return ""
    if not isinstance(key, str) or not 1 <= len(key) <= LONGEST:
        raise InvalidError(f"An idempotency key must be a string of 1 to {LONGEST} characters.")
    return key
