"""Webhook bodies, secrets and signatures according to Standard Webhooks, version 1 (no I/O)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from standardwebhooks import Webhook as Signer

from toolbus_common.crypto.webhook_secret import FORM, key_of


class NoSecretError(Exception):
    """The secret is empty or malformed; nothing is posted unsigned."""


def body_of(event: Mapping[str, Any]) -> bytes:
    """Return the body of the request for an event."""
    at = datetime.fromtimestamp(event["at"], UTC).isoformat().replace("+00:00", "Z")
    return msgspec.json.encode({"type": event["event"], "timestamp": at, "data": event})


def signers_of(secret: str) -> tuple[Signer, ...]:
    """Return a signer for each of the space-separated secrets: during a rotation there are two.

    Raises:
        NoSecretError: there is no secret, or a secret is not `whsec_` and Base64 of 24 to 64 bytes.

    """
    try:
        keys = [key_of(each) for each in secret.split()]
    except ValueError:
        raise NoSecretError(f"its secret is not {FORM}") from None
    if not keys:
        raise NoSecretError(f"its secret is empty; it must be {FORM}")
    return tuple(map(Signer, keys))


def headers_of(signers: Sequence[Signer], message_id: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers with the message's id, time (Unix seconds) and signatures."""
    moment, text = datetime.fromtimestamp(at, UTC), body.decode()
    return {
        "content-type": "application/json",
        "user-agent": "toolbus",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(each.sign(message_id, moment, text) for each in signers),
    }
