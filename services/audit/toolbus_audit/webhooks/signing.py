"""What a webhook is sent, signed as Standard Webhooks (version 1) says. Pure."""

import hmac
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

_PREFIX = "whsec_"


class NoSecretError(Exception):
    """The secret cannot be had: nothing is posted unsigned."""


def body_of(event: Mapping[str, Any]) -> bytes:
    """An event as the body of a request."""
    at = datetime.fromtimestamp(event["at"], UTC).isoformat().replace("+00:00", "Z")
    return msgspec.json.encode({"type": event["event"], "timestamp": at, "data": event})


def key_of(secret: str) -> bytes:
    """The key behind a secret: what follows `whsec_` as Base64, or the text itself.

    Raises:
        NoSecretError: it is empty, or no Base64.

    """
    if not secret:
        raise NoSecretError("its secret is empty")
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return b64decode(secret.removeprefix(_PREFIX), validate=True)
    except NotBase64 as error:
        raise NoSecretError("its secret is no Base64 after whsec_") from error


def headers_of(key: bytes, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers that say who sent this, when, and that nobody changed it."""
    signed = b"%b.%d.%b" % (message_id.encode(), at, body)
    signature = b64encode(hmac.new(key, signed, sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "user-agent": "toolbus",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{signature}",
    }
