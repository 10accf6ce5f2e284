"""Parse tokens that are not verified yet. Pure."""

from base64 import urlsafe_b64decode
from typing import Any

from toolbus_common import strict_json

ID_JAG_TYPE = "oauth-id-jag+jwt"

PARTS = 3


def parse_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a JWT without verifying it; empty if it is malformed."""
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
