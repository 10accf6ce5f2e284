"""Verification of one DPoP proof: its key, request and time. `replay_check` rejects used proofs."""

from hashlib import sha256
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from toolbus_common.base64url import encoded
from toolbus_common.crypto import jws
from toolbus_common.crypto.dpop.keys import KeyRefusedError, public_key

TYPE = "dpop+jwt"
HEADER, NONCE_HEADER = "dpop", "dpop-nonce"  # in lower case
LATE_SECONDS, EARLY_SECONDS = 60.0, 30.0  # tolerated age, and clock skew
LONGEST_PROOF = 4096  # characters
LONGEST_ID, LONGEST_NONCE = 256, 1024
INVALID, WANTS_NONCE = "invalid_dpop_proof", "use_dpop_nonce"
_PORTS = {"http": 80, "https": 443}


class ProofError(Exception):
    """An invalid proof.

    `code` is the error code of RFC 9449. If a nonce is required, `nonce` is the next nonce to use.
    """

    def __init__(self, message: str, code: str = INVALID, nonce: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.nonce = nonce


class Proof(msgspec.Struct, frozen=True):
    """A valid proof: the thumbprint of its key, its id, and the nonce in it."""

    key: str
    id: str
    nonce: str


class _Header(msgspec.Struct):
    typ: str
    alg: str
    jwk: dict[str, Any]


class _Claims(msgspec.Struct):
    jti: str
    htm: str
    htu: str
    iat: float
    ath: str = ""
    nonce: str = ""


def proven(text: str, method: str, url: str, now: float, token: str = "") -> Proof:
    """Return the verified proof for this request, and for `token` unless it is empty.

    Raises:
        ProofError: the proof is invalid.

    """
    try:
        found = jws.parse(text, LONGEST_PROOF)
    except jws.JwsError as error:
        raise ProofError(
            f"The DPoP header must contain one proof, a signed JWT: {error}."
        ) from error
    try:
        header = msgspec.convert(found.header, _Header)
        claims = msgspec.convert(found.claims, _Claims)
    except msgspec.ValidationError as error:
        raise ProofError(
            "The DPoP proof is malformed: a claim is missing or invalid; create it by RFC 9449."
        ) from error
    _check(claims, method, url, now)
    if token and claims.ath != digest_of(token):
        raise ProofError("The DPoP proof was made for another token: its ath does not match.")
    return Proof(_key(header, found), claims.jti, claims.nonce)


def nonce_of(value: str) -> str:
    """Return the nonce in a server's header; empty if the nonce is too long."""
    return value if len(value) <= LONGEST_NONCE else ""


def digest_of(token: str) -> str:
    """Return the value of the `ath` claim for a token."""
    return encoded(sha256(token.encode()).digest())


def _key(header: _Header, found: jws.Jws) -> str:
    if header.typ.lower() != TYPE:
        raise ProofError(f"The DPoP proof's typ must be {TYPE}.")
    try:
        key = public_key(header.alg, header.jwk)
    except KeyRefusedError as error:
        raise ProofError(f"The DPoP proof is rejected: {error}. Create a valid one.") from error
    if not key.has_signed(found.signature, found.message):
        raise ProofError(
            "The DPoP proof is not signed with the key in its jwk; sign it with that key."
        )
    return key.thumbprint


def _check(claims: _Claims, method: str, url: str, now: float) -> None:
    if claims.htm != method or not _is_same(claims.htu, url):
        raise ProofError(
            f"The DPoP proof was made for another request: htm must be {method}, htu {url}, "
            "without query and fragment."
        )
    if not now - LATE_SECONDS <= claims.iat <= now + EARLY_SECONDS:
        raise ProofError(
            f"The DPoP proof's iat must be within the last {LATE_SECONDS:.0f} s; create one per "
            "request, and set the clock."
        )
    if not 0 < len(claims.jti) <= LONGEST_ID or len(claims.nonce) > LONGEST_NONCE:
        raise ProofError(f"The DPoP proof needs a jti of at most {LONGEST_ID} characters.")


def _is_same(value: str, url: str) -> bool:
    """Return whether two URLs are equivalent (RFC 3986 section 6.2).

    A `value` with a query or fragment is never equivalent.
    """
    if "?" in value or "#" in value:
        return False
    try:
        return _normalized(urlsplit(value)) == _normalized(urlsplit(url))
    except ValueError:
        return False


def _normalized(parts: SplitResult) -> tuple[str, str, int | None, str, bool]:
    port = parts.port or _PORTS.get(parts.scheme)
    named = "@" in parts.netloc
    return parts.scheme, parts.hostname or "", port, unquote(parts.path) or "/", named
