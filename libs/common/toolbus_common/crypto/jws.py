"""Compact JWS (RFC 7515), parsed strictly. Signatures use joserfc.

joserfc's parser accepts several members with the same name and uses the last one. It also applies
`crit` and `b64` (RFC 7797). Two programs could interpret such a text differently, so this module
rejects it before any key is used.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from joserfc.jwa import JWS_ALGORITHMS, JWSAlgModel

from toolbus_common import strict_json
from toolbus_common.base64url import decoded

LONGEST = 64 * 1024  # characters
_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_UNSUPPORTED = frozenset({"crit", "b64"})
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # of a JWK
SIGNATURES: Final[dict[str, JWSAlgModel]] = {each.name: each for each in JWS_ALGORITHMS}


class JwsError(ValueError):
    """The text is not a strict JWS with a JSON object. The message is a clause with the reason."""


@dataclass(frozen=True, slots=True)
class Jws:
    """A JWS that is not verified yet. `message` is the signed text."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signature: bytes
    message: bytes


def parse(text: str, longest: int = LONGEST) -> Jws:
    """Parse a JWS without verifying it. Raises `JwsError`."""
    parts = _PARTS.fullmatch(text) if len(text) <= longest else None
    if parts is None:
        raise JwsError("it is not a signed JWT")
    try:
        header, claims = (strict_json.members(decoded(parts[each])) for each in (1, 2))
        signature = decoded(parts[3])
    except ValueError as error:
        raise JwsError("a part of it is not strict JSON in base64url") from error
    if _UNSUPPORTED & header.keys():
        raise JwsError("its header must not have 'crit' or 'b64'")
    return Jws(header, claims, signature, text[: parts.end(2)].encode())
