"""What a webhook is sent, signed as Standard Webhooks (version 1) says. Pure."""

import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

_PREFIX = "whsec_"
_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


class NoSecretError(Exception):
    """The secret cannot be had: nothing is posted unsigned."""


def body_of(fact: Mapping[str, Any]) -> bytes:
    """A fact as the body of a request."""
    at = datetime.fromtimestamp(fact["at"], UTC).isoformat().replace("+00:00", "Z")
    return msgspec.json.encode({"type": fact["fact"], "timestamp": at, "data": fact})


def resolved(secret: str, environ: Mapping[str, str]) -> bytes:
    """The key behind a declared secret: `${env:NAME}`, `whsec_` and Base64, or the text itself.

    Raises:
        NoSecretError: the environment does not have it, or it is no Base64.

    """
    match = _REFERENCE.fullmatch(secret)
    text = environ.get(match[1], "") if match is not None else secret
    if not text:
        raise NoSecretError("the environment of audit does not have its secret")
    if not text.startswith(_PREFIX):
        return text.encode()
    try:
        return b64decode(text.removeprefix(_PREFIX), validate=True)
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
