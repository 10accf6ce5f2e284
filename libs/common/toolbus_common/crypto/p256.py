"""Private keys of P-256, and what they sign as a JWS (ES256, RFC 7515 in its compact form)."""

from typing import Any, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256

from toolbus_common.base64url import decoded, encoded

P256_BYTES = 32

ALGORITHM = "ES256"


class P256Key:
    """A private key of P-256; `kept` is how it is kept, and tells it whole."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def new(cls) -> Self:
        """One that nobody has."""
        return cls(generate_private_key(SECP256R1()))

    @classmethod
    def of(cls, kept: str) -> Self:
        """The one that was kept. Raises `ValueError`."""
        return cls(derive_private_key(int.from_bytes(decoded(kept), "big"), SECP256R1()))

    @property
    def kept(self) -> str:
        """What makes it again."""
        return encoded(self._key.private_numbers().private_value.to_bytes(P256_BYTES, "big"))

    @property
    def public(self) -> dict[str, str]:
        """The public key as a JWK."""
        point = self._key.public_key().public_numbers()
        at = {name: getattr(point, name).to_bytes(P256_BYTES, "big") for name in ("x", "y")}
        return {"kty": "EC", "crv": "P-256", **{name: encoded(raw) for name, raw in at.items()}}

    def signed(self, header: str, claims: dict[str, Any]) -> str:
        """Claims below a header, which is encoded already."""
        message = f"{header}.{encoded(msgspec.json.encode(claims))}"
        pair = decode_dss_signature(self._key.sign(message.encode(), ECDSA(SHA256())))
        return f"{message}.{encoded(b''.join(n.to_bytes(P256_BYTES, 'big') for n in pair))}"


def header_of(**told: Any) -> str:
    """The encoded header of what is signed with such a key."""
    return encoded(msgspec.json.encode({"alg": ALGORITHM, **told}))
