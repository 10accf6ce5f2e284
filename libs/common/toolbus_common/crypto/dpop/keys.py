"""Public keys in DPoP proofs: validated strictly, identified by thumbprint (RFC 7638). Pure."""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from toolbus_common.base64url import decoded, encoded
from toolbus_common.crypto.p256 import P256_BYTES

ALGORITHMS = ("ES256", "EdDSA", "RS256")
SHORTEST_RSA, LONGEST_RSA = 2048, 4096  # bits: less is weak, more is costly to verify
LARGEST_EXPONENT = 2**32
_FIXED = {
    "ES256": {"crv": "P-256", "kty": "EC"},
    "EdDSA": {"crv": "Ed25519", "kty": "OKP"},
    "RS256": {"kty": "RSA"},
}
_NUMBERS = {"ES256": ("x", "y"), "EdDSA": ("x",), "RS256": ("e", "n")}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")

Verify = Callable[[bytes, bytes], None]  # signature and message; raises if they do not match


class KeyRefusedError(Exception):
    """The key is not valid for these algorithms; the message is a clause with the reason."""


def thumbprint(algorithm: str, jwk: Mapping[str, Any]) -> str:
    """Return the thumbprint of a key. Raises `KeyRefusedError` if it is invalid or private."""
    fixed = _FIXED.get(algorithm)
    if fixed is None:
        raise KeyRefusedError(f"its alg must be one of {', '.join(ALGORITHMS)}")
    if _PRIVATE & jwk.keys():
        raise KeyRefusedError(
            "its jwk contains a private key, which is compromised now: create a new key"
        )
    if any(jwk.get(name) != value for name, value in fixed.items()):
        raise KeyRefusedError(f"its jwk is not a key for {algorithm}")
    members = {**fixed, **{name: _text(jwk.get(name)) for name in _NUMBERS[algorithm]}}
    return encoded(sha256(msgspec.json.encode(members, order="sorted")).digest())


def is_signed(algorithm: str, jwk: Mapping[str, Any], signature: bytes, message: bytes) -> bool:
    """Return whether this key made this signature. Raises `KeyRefusedError`."""
    try:
        verify = _VERIFIERS[algorithm](*(decoded(_text(jwk.get(n))) for n in _NUMBERS[algorithm]))
    except ValueError as error:
        raise KeyRefusedError(f"its jwk is not a key for {algorithm}") from error
    try:
        verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _text(value: Any) -> str:
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise KeyRefusedError("its jwk cannot be read")
    return value


def _es256(x: bytes, y: bytes) -> Verify:
    if len(x) != P256_BYTES or len(y) != P256_BYTES:
        raise ValueError("a coordinate has another length")
    point = (int.from_bytes(x, "big"), int.from_bytes(y, "big"))
    key = EllipticCurvePublicNumbers(*point, SECP256R1()).public_key()

    def verify(signature: bytes, message: bytes) -> None:
        if len(signature) != 2 * P256_BYTES:
            raise InvalidSignature
        halves = (signature[:P256_BYTES], signature[P256_BYTES:])
        pair = encode_dss_signature(*(int.from_bytes(half, "big") for half in halves))
        key.verify(pair, message, ECDSA(SHA256()))

    return verify


def _eddsa(x: bytes) -> Verify:
    return Ed25519PublicKey.from_public_bytes(x).verify


def _rs256(e: bytes, n: bytes) -> Verify:
    exponent, modulus = int.from_bytes(e, "big"), int.from_bytes(n, "big")
    if exponent > LARGEST_EXPONENT or not SHORTEST_RSA <= modulus.bit_length() <= LONGEST_RSA:
        raise ValueError("the key is too short, or too long")
    key = RSAPublicNumbers(exponent, modulus).public_key()
    return lambda signature, message: key.verify(signature, message, PKCS1v15(), SHA256())


_VERIFIERS: dict[str, Callable[..., Verify]] = {
    "ES256": _es256, "EdDSA": _eddsa, "RS256": _rs256,
}  # fmt: skip
