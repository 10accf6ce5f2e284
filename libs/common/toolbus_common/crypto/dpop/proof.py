"""One proof: of which key, for which request, made when. Whether it is new is judged elsewhere."""

import re
from hashlib import sha256
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from toolbus_common.base64url import decoded, encoded
from toolbus_common.crypto.dpop.keys import KeyRefusedError, is_signed, thumbprint

TYPE = "dpop+jwt"
HEADER, NONCE_HEADER = "dpop", "dpop-nonce"  # in lower case
LATE_SECONDS, EARLY_SECONDS = 60.0, 30.0  # how old a proof may be, and how far ahead its clock
LONGEST_PROOF = 4096  # characters
LONGEST_ID, LONGEST_NONCE = 256, 1024
INVALID, WANTS_NONCE = "invalid_dpop_proof", "use_dpop_nonce"
_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_PORTS = {"http": 80, "https": 443}


class ProofError(Exception):
    """A proof that proves nothing here.

    `code` is RFC 9449's word for it, `nonce` what to make the next one with, where one is wanted.
    """

    def __init__(self, sentence: str, code: str = INVALID, nonce: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code
        self.nonce = nonce


class Proof(msgspec.Struct, frozen=True):
    """What a good proof says: its key's thumbprint, its own id, and the nonce it was made with."""

    key: str
    id: str
    nonce: str


class _Header(msgspec.Struct):
    typ: str
    alg: str
    jwk: dict[str, Any]
    crit: Any = None


class _Claims(msgspec.Struct):
    jti: str
    htm: str
    htu: str
    iat: float
    ath: str = ""
    nonce: str = ""


_header = msgspec.json.Decoder(_Header).decode
_claims = msgspec.json.Decoder(_Claims).decode


def proven(text: str, method: str, url: str, now: float, token: str = "") -> Proof:
    """What a proof proves for this request, and this token where one is shown.

    Raises:
        ProofError: nothing.

    """
    parts = _PARTS.fullmatch(text) if len(text) <= LONGEST_PROOF else None
    if parts is None:
        raise ProofError("The DPoP header must hold one proof, a signed JWT.")
    try:
        header, claims = _header(decoded(parts[1])), _claims(decoded(parts[2]))
        signature = decoded(parts[3])
    except (ValueError, RecursionError) as error:
        raise ProofError("The DPoP proof cannot be read: a claim is missing or odd.") from error
    _check(claims, method, url, now)
    if token and claims.ath != digest_of(token):
        raise ProofError("The DPoP proof was made for another token: its ath does not fit.")
    key = _key(header, signature, text.rpartition(".")[0].encode())
    return Proof(key, claims.jti, claims.nonce)


def nonce_told(told: str) -> str:
    """The nonce that a server's header told; empty where it is none that is used."""
    return told if len(told) <= LONGEST_NONCE else ""


def digest_of(token: str) -> str:
    """What a proof says of the token it is shown with."""
    return encoded(sha256(token.encode()).digest())


def _key(header: _Header, signature: bytes, message: bytes) -> str:
    if header.typ.lower() != TYPE or header.crit is not None:
        raise ProofError(f"The DPoP proof's typ must be {TYPE}, without crit.")
    try:
        key = thumbprint(header.alg, header.jwk)
        signed = is_signed(header.alg, header.jwk, signature, message)
    except KeyRefusedError as error:
        raise ProofError(f"The DPoP proof is not taken: {error}.") from error
    if not signed:
        raise ProofError("The DPoP proof is not signed with the key it carries.")
    return key


def _check(claims: _Claims, method: str, url: str, now: float) -> None:
    if claims.htm != method or not _is_same(claims.htu, url):
        raise ProofError(
            f"The DPoP proof was made for another request: htm must be {method}, htu {url}, "
            "without query and fragment."
        )
    if not now - LATE_SECONDS <= claims.iat <= now + EARLY_SECONDS:
        raise ProofError(
            f"The DPoP proof's iat must be within the last {LATE_SECONDS:.0f} s; make one for each "
            "request, and set the clock."
        )
    if not 0 < len(claims.jti) <= LONGEST_ID or len(claims.nonce) > LONGEST_NONCE:
        raise ProofError(f"The DPoP proof needs a jti of at most {LONGEST_ID} characters.")


def _is_same(told: str, url: str) -> bool:
    """Whether two addresses are one (RFC 3986 section 6.2); a query makes it another."""
    if "?" in told or "#" in told:
        return False
    try:
        return _place(urlsplit(told)) == _place(urlsplit(url))
    except ValueError:
        return False


def _place(parts: SplitResult) -> tuple[str, str, int | None, str, bool]:
    port = parts.port or _PORTS.get(parts.scheme)
    named = "@" in parts.netloc
    return parts.scheme, parts.hostname or "", port, unquote(parts.path) or "/", named
