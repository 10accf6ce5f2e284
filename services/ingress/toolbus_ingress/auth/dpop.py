"""Tokens bound to a key (DPoP, RFC 9449): a request shows the token, and a proof made for it."""

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
_WRONG = "invalid_token"
_REJECTING = ("unauthorized", "forbidden", "insufficient_scope")


class UnprovenError(UnauthorizedError):
    """Nothing proves that whoever shows the token holds its key. `error` is RFC 9449's word."""

    def __init__(self, reason: str, error: str = INVALID, nonce: str = "") -> None:
        super().__init__(reason)
        self.error = error
        self.nonce = nonce


def rejection(error: ToolbusError) -> str:
    """Return why credentials were refused, as it is counted; empty for any other failure."""
    if isinstance(error, UnprovenError):
        return "unproven"
    return error.code if error.code in _REJECTING else ""


@dataclass(frozen=True, slots=True)
class Possession:
    """Sees that bound tokens are used by who holds their key, and others as what they are."""

    public_url: str
    judge: ProofChecker = field(default_factory=ProofChecker)

    def check(
        self, bearer: Bearer, headers: Headers, scope: Mapping[str, Any], *, needed: bool
    ) -> None:
        """See that a token came as it must; `needed` where an unbound one is not enough.

        Raises:
            UnprovenError: it did not.
            OverloadedError: it cannot be seen now.

        """
        scheme, _, token = headers[b"authorization"].partition(b" ")
        if scheme.lower() != DPOP:
            if bearer.jkt:
                why = "This token is bound to a key: show it as DPoP, with a proof."
                raise UnprovenError(why, _WRONG)
            if needed:
                why = "Only bound tokens are taken here: ask for one with a DPoP proof."
                raise UnprovenError(why, _WRONG)
            return
        if not bearer.jkt:
            raise UnprovenError("This token is bound to no key: show it as Bearer.", _WRONG)
        self._prove(bearer, token.strip().decode("latin-1"), headers, scope)

    def _prove(
        self, bearer: Bearer, token: str, headers: Headers, scope: Mapping[str, Any]
    ) -> None:
        text = headers.get(_PROOF, b"").decode("latin-1")
        where = f"{self.public_url}{scope['path']}"
        try:
            self.judge.judge(text, scope["method"], where, token, bearer.jkt)
        except ProofError as error:
            raise UnprovenError(error.sentence, error.code, error.nonce) from error


def challenged(error: UnauthorizedError, where: bytes, shown: bytes) -> tuple[Header, ...]:
    """The headers of a 401: which tokens are taken, and `where` they are got.

    `shown` is the scheme a credential came with, empty where none came. Where people sign in, who
    shows no bound token is told of both schemes.
    """
    if isinstance(error, UnprovenError):
        wrong = b', error="%b"' % error.error.encode()
        nonce = ((_NONCE, error.nonce.encode()),) if error.nonce else ()
        return ((_CHALLENGE, _DPOP + wrong + where), *nonce)
    wrong = b', error="invalid_token"' if shown else b""
    if shown.lower() == DPOP:
        return ((_CHALLENGE, _DPOP + wrong + where),)
    also = b", DPoP %b" % _ALGORITHMS if where else b""
    return ((_CHALLENGE, b'Bearer realm="toolbus"' + wrong + where + also),)
