"""P-256 private keys, and the JWS signatures of these keys (ES256, RFC 7515 compact form)."""

from typing import Any, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import ECKey

from toolbus_common.base64url import decoded, encoded

P256_BYTES = 32
ALGORITHM = "ES256"
_ES256 = ECDSA(SHA256())


class P256Key:
    """A P-256 private key. `kept` is its serialized form, the member `d` of its JWK.

    The class signs without joserfc, because each request to a server with an identity header or a
    bound token needs a signature (ADR 30).
    """

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def new(cls) -> Self:
        """Return a new random key."""
        return cls(generate_private_key(SECP256R1()))

    @classmethod
    def of(cls, kept: str) -> Self:
        """Return the key of a serialized form. Raises `ValueError`."""
        return cls(derive_private_key(int.from_bytes(decoded(kept), "big"), SECP256R1()))

    @property
    def kept(self) -> str:
        """The serialized private key."""
        return str(ECKey.import_key(self._key)["d"])

    @property
    def public(self) -> dict[str, Any]:
        """The public key as a JWK."""
        return dict(ECKey.import_key(self._key).as_dict(private=False))

    def signed(self, header: str, claims: dict[str, Any]) -> str:
        """Return a signed JWS of the claims.

        `header` is the encoded header that `header_of` returns.
        """
        message = f"{header}.{encoded(msgspec.json.encode(claims))}"
        pair = decode_dss_signature(self._key.sign(message.encode(), _ES256))
        return f"{message}.{encoded(b''.join(n.to_bytes(P256_BYTES, 'big') for n in pair))}"


def header_of(**fields: Any) -> str:
    """Return the encoded header of a JWS that a P-256 key signs."""
    return encoded(msgspec.json.encode({"alg": ALGORITHM, **fields}))
