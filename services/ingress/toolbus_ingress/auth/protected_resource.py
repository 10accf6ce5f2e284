"""The protected resource: where tokens come from, whose one is, and what a 401 says of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.access.config_snapshot import ConfigProjection, hash_of, key_digest_of
from toolbus_common.access.oauth_scopes import ADMINISTRATION, appoints, first
from toolbus_common.contracts import Bearer, TokenQuery
from toolbus_common.crypto.dpop.keys import ALGORITHMS
from toolbus_common.errors import OverloadedError, UnauthorizedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_ingress.auth.dpop import Possession, UnprovenError
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers

WELL_KNOWN = "/.well-known/oauth-protected-resource"
API = "/api"
LONGEST_TOKEN = 8192
MOST_ASKED = 64
SECONDS = 10.0
_TOKEN = re.compile(rb"(?i:bearer|dpop) +(ey[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)")
_PATH = re.compile(r"(?:/mcp(?:/([^/]+))?)?")
_MAY_KEEP = (b"cache-control", b"max-age=60")


def token_of(headers: Headers) -> str:
    """The access token of a request; empty where it carries none, or a key."""
    found = _TOKEN.fullmatch(headers.get(b"authorization", b""))
    return found[1].decode() if found is not None else ""


@dataclass(slots=True)
class Identity:
    """What the edge knows of people: it asks oauth about a token once, and looks it up after that.

    It is there where the declaration grants anything to anybody who signs in.
    """

    directory: ConfigProjection
    asks: RequestReply
    possession: Possession
    _asked: int = 0

    @property
    def public_url(self) -> str:
        """Where this gateway is reached."""
        return self.possession.public_url

    @property
    def on(self) -> bool:
        """Whether anybody may sign in."""
        return bool(self.public_url and self.directory.now.declaration.access)

    def resource(self, server: str) -> str:
        """What a token must have been made for, at the endpoint of one server or of all."""
        return f"{self.public_url}/mcp/{server}" if server else f"{self.public_url}/mcp"

    @property
    def administration(self) -> str:
        """What a token must have been made for at `/api`."""
        return f"{self.public_url}{API}"

    @property
    def administered(self) -> bool:
        """Whether anybody who signs in may administer."""
        return self.on and appoints(self.directory.now.declaration)

    async def meet(self, token: str, resource: str) -> None:
        """See that the token's holder is known, and that it was made for this resource.

        Raises:
            UnauthorizedError: it is not good, or good for another endpoint.

        """
        if len(token) > LONGEST_TOKEN:
            raise UnauthorizedError("This token is longer than any that is taken.")
        token_hash = hash_of(key_digest_of(token))
        if self.directory.now.keys.owner(token_hash) is not None:
            return  # a key that looks like a token
        bearer = self.directory.bearers.known(token_hash) or await self._ask(token, token_hash)
        _check(bearer, resource)

    def held(self, key_digest: str, server: str, headers: Headers, scope: Mapping[str, Any]) -> str:
        """What stays the same when its holder's token is renewed.

        Raises `UnauthorizedError` for a token that was made for another endpoint, however it came,
        or that came without the proof it needs.
        """
        bearer = self.directory.bearers.known(hash_of(key_digest))
        if bearer is None:
            raise UnauthorizedError("This token has expired; refresh it, or sign in again.")
        _check(bearer, self.resource(server))
        self.prove(bearer, headers, scope)
        return bearer.holder

    def prove(self, bearer: Bearer, headers: Headers, scope: Mapping[str, Any]) -> None:
        """See that a token came with the proof it or its rule needs. Raises `UnauthorizedError`."""
        self.possession.check(bearer, headers, scope, needed=self._wants_key(bearer))

    def _wants_key(self, bearer: Bearer) -> bool:
        """Whether its rule takes only tokens that are bound to a key."""
        rule = self.directory.now.declaration.access.get(bearer.access)
        return rule is not None and rule.dpop

    async def typed(self, secret: str) -> str:
        """The proof of a key or token that was typed into a form, which carries no proof of a key.

        Raises `UnauthorizedError` for a token that needs one.
        """
        key_digest = key_digest_of(secret)
        if _TOKEN.fullmatch(b"bearer %b" % secret.encode()):
            await self.meet(secret, self.resource(""))
            bearer = self.directory.bearers.known(hash_of(key_digest))
            if bearer is not None and (bearer.jkt or self._wants_key(bearer)):
                raise UnprovenError(
                    "This token is bound to a key, or has to be: a page proves none."
                )
        return key_digest

    async def _ask(self, token: str, token_hash: str) -> Bearer:
        if not self.on:
            raise UnauthorizedError("This key opens nothing: it is unknown, revoked or expired.")
        if self._asked >= MOST_ASKED:
            raise OverloadedError("Too many new tokens are being looked at; retry.")
        self._asked += 1
        try:
            bearer = await self.asks.ask(TokenQuery(token=token), Bearer, SECONDS)
        finally:
            self._asked -= 1
        self.directory.bearers.take(token_hash, bearer)
        return bearer

    def told(self, scope: dict[str, Any]) -> Response | None:
        """The document of a protected resource (RFC 9728), or None where the path is not one's."""
        path: str = scope["path"]
        if not path.startswith(WELL_KNOWN) or not self.on or scope["method"] != "GET":
            return None
        of = path.removeprefix(WELL_KNOWN)
        if of == API and self.administered:
            return self._document(self.administration, list(ADMINISTRATION))
        found = _PATH.fullmatch(of)
        if found is None or (found[1] and not self.directory.now.serves(found[1])):
            return None
        return self._document(self.resource(found[1] or ""), self._first)

    def _document(self, resource: str, scopes: list[str]) -> Response:
        document = {
            "resource": resource,
            "authorization_servers": [self.public_url],
            "scopes_supported": scopes,
            "bearer_methods_supported": ["header"],
            "resource_name": "Toolbus",
            "dpop_signing_alg_values_supported": ALGORITHMS,
            "dpop_bound_access_tokens_required": self._needs_key,
        }
        return Response(200, msgspec.json.encode(document), (_MAY_KEEP,))

    def challenge(self, path: str) -> bytes:
        """What a 401 says of where to sign in and for what; nothing where nobody may."""
        if not self.on:
            return b""
        return self._where(path) + f', scope="{" ".join(self._first)}"'.encode()

    @property
    def where_to_administer(self) -> bytes:
        """What a challenge at `/api` says of where to sign in; nothing where nobody may."""
        return self._named(API) if self.administered else b""

    def pointed(self, answer: Response, path: str) -> Response:
        """An answer whose challenge, if there is one, says where to sign in."""
        headers = tuple(
            (name, value + self._where(path) if _lacks_where(name, value) else value)
            for name, value in answer.headers
        )
        return Response(answer.status, answer.body, headers, answer.rejected)

    @property
    def _first(self) -> list[str]:
        return first(self.directory.now.declaration)

    def _where(self, path: str) -> bytes:
        found = _PATH.fullmatch(path)
        return self._named(path if found and path and self._serves(found[1]) else "/mcp")

    def _named(self, path: str) -> bytes:
        return f', resource_metadata="{self.public_url}{WELL_KNOWN}{path}"'.encode()

    @property
    def _needs_key(self) -> bool:
        """Whether no token is taken that is not bound."""
        return all(rule.dpop for rule in self.directory.now.declaration.access.values())

    def _serves(self, server: str | None) -> bool:
        return server is None or self.directory.now.serves(server)


def _check(bearer: Bearer, resource: str) -> None:
    if bearer.resource != resource:
        raise UnauthorizedError(
            "This token was made for another endpoint; sign in again for this one."
        )


def _lacks_where(name: bytes, value: bytes) -> bool:
    return name == b"www-authenticate" and b"resource_metadata" not in value


def own_names(public_url: str) -> tuple[frozenset[str], frozenset[str]]:
    """The host and the origin of our own URL, which are ours without being listed."""
    parts = urlsplit(public_url)
    if not parts.netloc:
        return frozenset(), frozenset()
    return frozenset({parts.netloc.lower()}), frozenset(
        {f"{parts.scheme}://{parts.netloc}".lower()}
    )
