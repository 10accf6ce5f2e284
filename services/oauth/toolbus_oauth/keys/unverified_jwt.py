"""What a token says of itself, before anything of it is believed. Pure."""

from base64 import urlsafe_b64decode
from typing import Any

from toolbus_common import strict_json

TYPE = "oauth-id-jag+jwt"

PARTS = 3


def peeked(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a signed token; empty where it is none."""
    parts = token.split(".")
    if len(parts) != PARTS:
        return {}, {}
    return _object(parts[0]), _object(parts[1])


def _object(text: str) -> dict[str, Any]:
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return strict_json.members(raw)
    except ValueError:
        return {}
