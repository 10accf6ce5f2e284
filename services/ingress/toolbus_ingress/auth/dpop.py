"""DPoP (RFC 9449): a bound access token is valid only with a proof made for the request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.contracts import Bearer
from toolbus_common.crypto.dpop.keys import ALGORITHMS
from toolbus_common.crypto.dpop.proof import HEADER, INVALID, NONCE_HEADER, ProofError
from toolbus_common.crypto.dpop.replay_check import ProofChecker
from toolbus_common.errors import ToolbusError, UnauthorizedError
from toolbus_ingress.http.request_guard import Headers

BEARER, DPOP = b"bearer", b"dpop"
SCHEMES = (BEARER, DPOP)
Header = tuple[bytes, bytes]
_PROOF, _NONCE = HEADER.encode(), NONCE_HEADER.encode()
_CHALLENGE = b"www-authenticate"
_ALGORITHMS = b'algs="%b"' % " ".join(ALGORITHMS).encode()
_DPOP = b'DPoP realm="toolbus", %b' % _ALGORITHMS
_INVALID = "invalid_token"
_REJECTIONS = ("unauthorized", "forbidden", "insufficient_scope")


class InvalidProofError(UnauthorizedError):
    """The request has no valid proof that its sender has the access token's key.

    `error` is an error code of RFC 9449.
    """

    def __init__(self, reason: str, error: str = INVALID, nonce: str = "") -> None:
        super().__init__(reason)
        self.error = error
        self.nonce = nonce


def rejection_code(error: ToolbusError) -> str:
    """Return the code under which rejected credentials are counted; empty for other failures."""
    if isinstance(error, InvalidProofError):
        return "unproven"
    return error.code if error.code in _REJECTIONS else ""


@dataclass(frozen=True, slots=True)
class DPoPVerifier:
    """Checks that bound tokens are sent with a proof of their key, and other tokens as Bearer."""

    public_url: str
    checker: ProofChecker = field(default_factory=ProofChecker)

    def check(
        self, bearer: Bearer, headers: Headers, scope: Mapping[str, Any], *, required: bool
    ) -> None:
        """Check how a token was sent; with `required`, an unbound token is rejected.

        Raises:
            InvalidProofError: the scheme does not match the token, or the proof is invalid.
            OverloadedError: the proof cannot be checked now.

        """
        scheme, _, token = headers[b"authorization"].partition(b" ")
        if scheme.lower() != DPOP:
            if bearer.jkt:
                raise InvalidProofError(
                    "The access token is bound to a key. Send it with the scheme 'DPoP' and a "
                    "proof.",
                    _INVALID,
                )
            if required:
                raise InvalidProofError(
                    "This endpoint accepts only bound access tokens. Request one with a DPoP "
                    "proof.",
                    _INVALID,
                )
            return
        if not bearer.jkt:
            raise InvalidProofError(
                "The access token is not bound to a key. Send it with the scheme 'Bearer'.",
                _INVALID,
            )
        proof = headers.get(_PROOF, b"").decode("latin-1")
        url = f"{self.public_url}{scope['path']}"
        secret = token.strip().decode("latin-1")
        try:
            self.checker.verify(proof, scope["method"], url, secret, bearer.jkt)
        except ProofError as error:
            raise InvalidProofError(error.message, error.code, error.nonce) from error


def challenge_headers(
    error: UnauthorizedError, metadata: bytes, scheme: bytes
) -> tuple[Header, ...]:
    """Return the headers of a 401: the accepted schemes, and where to get a token.

    `metadata` are the challenge's sign-in parameters; empty if sign-in is disabled. `scheme` is
    the scheme of the request's credential, empty without a credential. With sign-in, a challenge
    to a request without DPoP names both schemes.
    """
    if isinstance(error, InvalidProofError):
        cause = b', error="%b"' % error.error.encode()
        nonce = ((_NONCE, error.nonce.encode()),) if error.nonce else ()
        return ((_CHALLENGE, _DPOP + cause + metadata), *nonce)
    cause = b', error="invalid_token"' if scheme else b""
    if scheme.lower() == DPOP:
        return ((_CHALLENGE, _DPOP + cause + metadata),)
    also = b", DPoP %b" % _ALGORITHMS if metadata else b""
    return ((_CHALLENGE, b'Bearer realm="toolbus"' + cause + metadata + also),)
