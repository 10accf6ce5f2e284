"""A token that is bound to a key: each request proves anew that the key is ours (RFC 9449)."""

from toolbus_common.crypto.dpop.client import ProofKey, bare
from toolbus_common.crypto.dpop.proof import NONCE_HEADER, WANTS_NONCE, nonce_told
from toolbus_executor.transport.http1 import Head

UNAUTHORIZED = 401
_NONCE = NONCE_HEADER.encode()


class Prover:
    """Makes the proofs of one token, with the nonce the server gave last."""

    def __init__(self, token: str, key: str, nonce: str = "") -> None:
        self.token = token
        self.key = key
        self.nonce = nonce
        self._key = ProofKey.of(key)

    def line(self, request: bytes, origin: str) -> bytes:
        """The header that proves this request to a server."""
        verb, path = request[: request.index(b" HTTP/1.1\r\n")].decode("latin-1").split(" ", 1)
        url = bare(f"{origin}{path}")
        proof = self._key.proof(verb, url, token=self.token, nonce=self.nonce)
        return b"DPoP: %b\r\n" % proof.encode("ascii")

    def wants_again(self, head: Head, used: str) -> bool:
        """Take note of an answer's nonce; whether `used` instead of it was why it is a refusal."""
        nonce = nonce_told(head.headers.get(_NONCE, b"").decode("latin-1"))
        if not nonce:
            return False
        self.nonce = nonce
        told = head.headers.get(b"www-authenticate", b"")
        return nonce != used and head.status == UNAUTHORIZED and WANTS_NONCE.encode() in told


def prover_of(before: Prover | None, token: str, key: str) -> Prover | None:
    """Who proves this token: nobody where it is bound to no key, else the one before if it can."""
    if not key:
        return None
    if before is not None and (before.token, before.key) == (token, key):
        return before
    return Prover(token, key, before.nonce if before is not None else "")
