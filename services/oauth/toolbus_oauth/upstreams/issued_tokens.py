"""Access tokens that Toolbus itself issues for servers that accept it as an issuer (RFC 9068)."""

import secrets
from dataclasses import dataclass
from time import time
from typing import Any

from joserfc.jwk import ECKey

from toolbus_common import strict_json
from toolbus_common.config import Server
from toolbus_common.contracts import UpstreamTokenQuery, UpstreamTokenReply
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_oauth.keys.signing_keys import SigningKeys

ACCESS_TOKEN = "at+jwt"  # noqa: S105 - the type of one
SECONDS = 300.0
_CALLER = ("sub", "key", "customer", "team", "act")


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """Issuer of tokens for one server and one caller.

    Such a token names no grant, so this gateway itself does not accept it.
    """

    issuer: str
    keys: SigningKeys

    def answer(self, query: UpstreamTokenQuery, server: Server) -> UpstreamTokenReply:
        """Return a token of the caller; of this gateway, to list the server's tools."""
        if not self.issuer:
            return UpstreamTokenReply(
                reason="The tokens of 'grant: issued' name the issuer; set TOOLBUS_PUBLIC_URL."
            )
        caller = strict_json.members(query.claims.encode()) if query.claims else {}
        named = {name: caller[name] for name in _CALLER if name in caller}
        now = time()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": self.issuer,
            "aud": server.oauth_url,
            "client_id": self.issuer,
            "iat": int(now),
            "exp": int(now + SECONDS),
            "jti": secrets.token_urlsafe(16),
            **named,
        }
        key = ProofKey.new() if server.oauth is not None and server.oauth.dpop else None
        if key is not None:
            claims["cnf"] = {"jkt": ECKey.import_key(key.public).thumbprint()}
        token = self.keys.sign(claims, ACCESS_TOKEN)
        return UpstreamTokenReply(
            token=token, key=key.kept if key is not None else "", ends=now + SECONDS
        )
