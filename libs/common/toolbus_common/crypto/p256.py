"""P-256 private keys and JWS signatures with them (ES256, RFC 7515 compact form)."""

from typing import Any, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from joserfc.jwk import ECKey

from toolbus_common.base64url import decoded, encoded
from toolbus_common.crypto.jws import SIGNATURES

ALGORITHM = "ES256"
_sign = SIGNATURES[ALGORITHM].sign


class P256Key:
    """A P-256 private key; `kept` is its serialized form, the member `d` of its JWK."""

    def __init__(self, key: ECKey) -> None:
        self._key = key

    @classmethod
    def new(cls) -> Self:
        """Generate a key."""
        return cls(ECKey.generate_key("P-256"))

    @classmethod
    def of(cls, kept: str) -> Self:
        """Load a key from its serialized form. Raises `ValueError`."""
        number = int.from_bytes(decoded(kept), "big")
        return cls(ECKey.import_key(derive_private_key(number, SECP256R1())))

    @property
    def kept(self) -> str:
        """The serialized private key."""
        return str(self._key["d"])

    @property
    def public(self) -> dict[str, Any]:
        """The public key as a JWK."""
        return dict(self._key.as_dict(private=False))

    def signed(self, header: str, claims: dict[str, Any]) -> str:
        """Return a signed JWS of the claims; `header` is encoded already."""
        message = f"{header}.{encoded(msgspec.json.encode(claims))}"
        return f"{message}.{encoded(_sign(message.encode(), self._key))}"


def header_of(**fields: Any) -> str:
    """Return the encoded header of a JWS signed with such a key."""
    return encoded(msgspec.json.encode({"alg": ALGORITHM, **fields}))
