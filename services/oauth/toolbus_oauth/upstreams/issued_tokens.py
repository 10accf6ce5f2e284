"""Access tokens that Toolbus itself issues for servers that accept it as an issuer (RFC 9068)."""

import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any

from joserfc.jwk import ECKey

from toolbus_common import strict_json
from toolbus_common.config import Server
from toolbus_common.contracts import UpstreamTokenQuery, UpstreamTokenReply
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.server.grants import ACCESS_TOKEN

SECONDS = 300.0
REUSED_SECONDS = SECONDS / 2  # a token with less time left is replaced
MAX_KEPT = 4096
_CALLER = ("sub", "key", "customer", "team", "act")


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """Issuer of tokens for one server and one caller.

    Such a token names no grant, so this gateway itself does not accept it. Executor requests a
    token every few seconds, and the server must verify each new one, so tokens are reused.
    """

    issuer: str
    keys: SigningKeys
    _kept: dict[tuple[str, str, bool], UpstreamTokenReply] = field(default_factory=dict)

    def answer(self, query: UpstreamTokenQuery, server: Server) -> UpstreamTokenReply:
        """Return a token for the caller, or for this gateway if it lists the server's tools."""
        if not self.issuer:
            return UpstreamTokenReply(
                reason="The tokens of 'grant: issued' name the issuer; set TOOLBUS_PUBLIC_URL."
            )
        bound = bool(server.oauth and server.oauth.dpop)
        kept = self._kept.get((server.oauth_url, query.claims, bound))
        if kept is None or kept.ends - time() < REUSED_SECONDS or _is_rejected(kept, query):
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            kept = self._issued(query.claims, server.oauth_url, bound=bound)
            self._kept[server.oauth_url, query.claims, bound] = kept
        return kept

    def _issued(self, caller_claims: str, audience: str, *, bound: bool) -> UpstreamTokenReply:
        caller = strict_json.members(caller_claims.encode()) if caller_claims else {}
        named = {name: caller[name] for name in _CALLER if name in caller}
        now = time()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": self.issuer,
            "aud": audience,
            "client_id": self.issuer,
            "iat": int(now),
            "exp": int(now + SECONDS),
            "jti": secrets.token_urlsafe(16),
            **named,
        }
        key = ProofKey.new() if bound else None
        if key is not None:
            claims["cnf"] = {"jkt": ECKey.import_key(key.public).thumbprint()}
        token = self.keys.sign(claims, ACCESS_TOKEN)
        return UpstreamTokenReply(
            token=token, key=key.kept if key is not None else "", ends=now + SECONDS
        )


def _is_rejected(kept: UpstreamTokenReply, query: UpstreamTokenQuery) -> bool:
    return sha256(kept.token.encode()).hexdigest() == query.rejected
