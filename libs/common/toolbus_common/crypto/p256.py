"""P-256 private keys and JWS signatures with them (ES256, RFC 7515 compact form)."""

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
    """A P-256 private key; `kept` is its serialized form."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def new(cls) -> Self:
        """Generate a key."""
        return cls(generate_private_key(SECP256R1()))

    @classmethod
    def of(cls, kept: str) -> Self:
        """Load a key from its serialized form. Raises `ValueError`."""
        return cls(derive_private_key(int.from_bytes(decoded(kept), "big"), SECP256R1()))

    @property
    def kept(self) -> str:
        """The serialized private key."""
        return encoded(self._key.private_numbers().private_value.to_bytes(P256_BYTES, "big"))

    @property
    def public(self) -> dict[str, str]:
        """The public key as a JWK."""
        point = self._key.public_key().public_numbers()
        at = {name: getattr(point, name).to_bytes(P256_BYTES, "big") for name in ("x", "y")}
        return {"kty": "EC", "crv": "P-256", **{name: encoded(raw) for name, raw in at.items()}}

    def signed(self, header: str, claims: dict[str, Any]) -> str:
        """Return a signed JWS of the claims; `header` is encoded already."""
        message = f"{header}.{encoded(msgspec.json.encode(claims))}"
        pair = decode_dss_signature(self._key.sign(message.encode(), ECDSA(SHA256())))
        return f"{message}.{encoded(b''.join(n.to_bytes(P256_BYTES, 'big') for n in pair))}"


def header_of(**fields: Any) -> str:
    """Return the encoded header of a JWS signed with such a key."""
    return encoded(msgspec.json.encode({"alg": ALGORITHM, **fields}))
