"""Webhook bodies and signatures according to Standard Webhooks, version 1. Pure."""

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
    """The secret is empty or malformed; nothing is posted unsigned."""


def body_of(event: Mapping[str, Any]) -> bytes:
    """Return the body of the request for an event."""
    at = datetime.fromtimestamp(event["at"], UTC).isoformat().replace("+00:00", "Z")
    return msgspec.json.encode({"type": event["event"], "timestamp": at, "data": event})


def key_of(secret: str) -> bytes:
    """Return the signing key of a secret: Base64 after `whsec_`, or the text itself.

    Raises:
        NoSecretError: the secret is empty, or not Base64.

    """
    if not secret:
        raise NoSecretError("its secret is empty")
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return b64decode(secret.removeprefix(_PREFIX), validate=True)
    except NotBase64 as error:
        raise NoSecretError("its secret is not Base64 after whsec_") from error


def headers_of(key: bytes, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers with the message's id, time (Unix seconds) and signature."""
    signed = b"%b.%d.%b" % (message_id.encode(), at, body)
    signature = b64encode(hmac.new(key, signed, sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "user-agent": "toolbus",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{signature}",
    }
