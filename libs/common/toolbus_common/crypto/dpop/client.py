"""DPoP keys and proofs for requests to upstream servers."""

import re
import secrets
from functools import cached_property
from time import time

from toolbus_common.crypto.dpop.proof import TYPE, digest_of
from toolbus_common.crypto.p256 import P256Key, header_of

_TAIL = re.compile(r"[?#].*", re.DOTALL)


class ProofKey(P256Key):
    """The private key that tokens are bound to. It signs the DPoP proofs."""

    def proof(self, method: str, url: str, *, token: str = "", nonce: str = "") -> str:
        """Return a DPoP proof for one request.

        `url` must be without query and fragment (`bare`).
        """
        claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": url, "iat": int(time())}
        if token:
            claims["ath"] = digest_of(token)
        if nonce:
            claims["nonce"] = nonce
        return self.signed(self._header, claims)

    @cached_property
    def _header(self) -> str:
        return header_of(typ=TYPE, jwk=self.public)


def bare(url: str) -> str:
    """Return a URL without query and fragment, the form that proofs contain."""
    return _TAIL.sub("", url)
