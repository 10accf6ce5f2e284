"""Public keys in DPoP proofs: strict validation, and thumbprints (RFC 7638) (no I/O)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from toolbus_common.base64url import decoded
from toolbus_common.crypto.jws import PRIVATE_MEMBERS, SIGNATURES

ALGORITHMS = ("ES256", "EdDSA", "RS256")
# Sizes in bits. A shorter key is weak, and a longer key is costly to verify.
SHORTEST_RSA, LONGEST_RSA = (2048, 4096)
LARGEST_EXPONENT = 2**32
MAX_KEYS = 1024  # cached keys; a client signs each request with the same key
_KINDS: dict[str, Any] = {"ES256": ECKey, "EdDSA": OKPKey, "RS256": RSAKey}
_FIXED = {
    "ES256": {"kty": "EC", "crv": "P-256"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    "RS256": {"kty": "RSA"},
}
_NUMBERS = {"ES256": ("x", "y"), "EdDSA": ("x",), "RS256": ("e", "n")}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class KeyRefusedError(Exception):
    """The key is not valid for these algorithms. The message is a clause with the reason."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A valid public key for one algorithm."""

    thumbprint: str
    algorithm: str
    key: ECKey | OKPKey | RSAKey

    def has_signed(self, signature: bytes, message: bytes) -> bool:
        """Return whether this key made this signature."""
        return SIGNATURES[self.algorithm].verify(message, signature, self.key)


def public_key(algorithm: str, jwk: Mapping[str, Any]) -> PublicKey:
    """Return the key in a JWK. Raises `KeyRefusedError` if it is invalid or private."""
    fixed = _FIXED.get(algorithm)
    if fixed is None:
        raise KeyRefusedError(f"its alg must be one of {', '.join(ALGORITHMS)}")
    if PRIVATE_MEMBERS & jwk.keys():
        raise KeyRefusedError(
            "its jwk contains a private key, which is compromised now: create a new key"
        )
    if any(jwk.get(name) != value for name, value in fixed.items()):
        raise KeyRefusedError(f"its jwk is not a key for {algorithm}")
    return _imported(algorithm, *(_text(jwk.get(name)) for name in _NUMBERS[algorithm]))


@lru_cache(MAX_KEYS)
def _imported(algorithm: str, *numbers: str) -> PublicKey:
    """Return the public key with these numbers. Raises `KeyRefusedError`.

    Only the canonical form is accepted, because every other form has another thumbprint.
    """
    kind = _KINDS[algorithm]
    given = {**_FIXED[algorithm], **dict(zip(_NUMBERS[algorithm], numbers, strict=True))}
    try:
        if algorithm == "RS256":
            _check_size(*map(decoded, numbers))
        key = kind.import_key(kind.import_key(given).public_key)
    except (JoseError, ValueError) as error:
        raise KeyRefusedError(f"its jwk is not a key for {algorithm}") from error
    if key.as_dict(private=False) != given:
        raise KeyRefusedError(f"its jwk is not the canonical form of a key for {algorithm}")
    return PublicKey(key.thumbprint(), algorithm, key)


def _check_size(e: bytes, n: bytes) -> None:
    exponent, modulus = int.from_bytes(e, "big"), int.from_bytes(n, "big")
    if exponent > LARGEST_EXPONENT or not SHORTEST_RSA <= modulus.bit_length() <= LONGEST_RSA:
        raise ValueError("the key is too short, or too long")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise KeyRefusedError("its jwk cannot be read")
    return value
