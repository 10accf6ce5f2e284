"""Access tokens that are bound to a key. Each request contains a proof of the key (RFC 9449)."""

from toolbus_common.crypto.dpop.client import ProofKey, bare
from toolbus_common.crypto.dpop.proof import NONCE_HEADER, WANTS_NONCE, nonce_of
from toolbus_executor.transport.http1 import Head

UNAUTHORIZED = 401
_NONCE = NONCE_HEADER.encode()


class Prover:
    """Creator of the proofs for one token, with the latest nonce of the server."""

    def __init__(self, token: str, key: str, nonce: str = "") -> None:
        self.token = token
        self.key = key
        self.nonce = nonce
        self._key = ProofKey.of(key)

    def line(self, request: bytes, origin: str) -> bytes:
        """Return the `DPoP` header line with the proof for this request."""
        verb, path = request[: request.index(b" HTTP/1.1\r\n")].decode("latin-1").split(" ", 1)
        url = bare(f"{origin}{path}")
        proof = self._key.proof(verb, url, token=self.token, nonce=self.nonce)
        return b"DPoP: %b\r\n" % proof.encode("ascii")

    def needs_retry(self, head: Head, used: str) -> bool:
        """Store the nonce of a response, and return whether the request must be sent again.

        It must be sent again if the server rejected only the nonce `used`.
        """
        nonce = nonce_of(head.headers.get(_NONCE, b"").decode("latin-1"))
        if not nonce:
            return False
        self.nonce = nonce
        challenge = head.headers.get(b"www-authenticate", b"")
        return nonce != used and head.status == UNAUTHORIZED and WANTS_NONCE.encode() in challenge


def prover_of(before: Prover | None, token: str, key: str) -> Prover | None:
    """Return the prover of a token; None without a key.

    The previous prover `before` is returned if its token and key are the same. A new prover starts
    with the nonce of the previous one.
    """
    if not key:
        return None
    if before is not None and (before.token, before.key) == (token, key):
        return before
    return Prover(token, key, before.nonce if before is not None else "")
