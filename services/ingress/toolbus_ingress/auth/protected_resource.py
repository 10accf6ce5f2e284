"""The OAuth protected resource: verify access tokens, publish metadata, build 401 challenges."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.access.config_snapshot import ConfigView, hash_of, key_digest_of
from toolbus_common.access.oauth_scopes import ADMINISTRATION, appoints, first
from toolbus_common.contracts import Bearer, TokenQuery
from toolbus_common.crypto.dpop.keys import ALGORITHMS
from toolbus_common.errors import OverloadedError, UnauthorizedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_ingress.auth.dpop import DPoPVerifier, InvalidProofError
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers

WELL_KNOWN = "/.well-known/oauth-protected-resource"
API = "/api"
LONGEST_TOKEN = 8192
MAX_QUERIES = 64
SECONDS = 10.0
INVALID_KEY = "Invalid, revoked or expired API key."
_TOKEN = re.compile(rb"(?i:bearer|dpop) +(ey[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)")
_PATH = re.compile(r"(?:/mcp(?:/([^/]+))?)?")
_CACHEABLE = (b"cache-control", b"max-age=60")


def token_of(headers: Headers) -> str:
    """Return the access token of a request; empty if the credential is missing or is a key."""
    found = _TOKEN.fullmatch(headers.get(b"authorization", b""))
    return found[1].decode() if found is not None else ""


@dataclass(slots=True)
class ProtectedResource:
    """The gateway as an OAuth protected resource (RFC 9728).

    A new token is verified once by the oauth service, and then looked up like a key. Sign-in is
    enabled if the configuration has access rules and a public URL.
    """

    directory: ConfigView
    requests: RequestReply
    dpop: DPoPVerifier
    _queries: int = 0

    @property
    def public_url(self) -> str:
        """The URL at which clients reach this gateway."""
        return self.dpop.public_url

    @property
    def enabled(self) -> bool:
        """Whether people may sign in."""
        return bool(self.public_url and self.directory.now.configuration.access)

    def resource(self, server: str) -> str:
        """Return the audience of tokens for a server's endpoint, or for `/mcp` (empty)."""
        return f"{self.public_url}/mcp/{server}" if server else f"{self.public_url}/mcp"

    @property
    def admin_resource(self) -> str:
        """The audience of tokens for `/api`."""
        return f"{self.public_url}{API}"

    @property
    def admin_enabled(self) -> bool:
        """Whether people who sign in may have an administrator's role."""
        return self.enabled and appoints(self.directory.now.configuration)

    # -- tokens --------------------------------------------------------------------------------

    async def verify(self, token: str, resource: str) -> None:
        """Verify a token and its audience, and cache its holder.

        Raises:
            UnauthorizedError: the token is invalid, or was issued for another endpoint.

        """
        if len(token) > LONGEST_TOKEN:
            raise UnauthorizedError(
                f"The access token exceeds {LONGEST_TOKEN} characters. Sign in again."
            )
        token_hash = hash_of(key_digest_of(token))
        if self.directory.now.keys.owner(token_hash) is not None:
            return  # an API key in the form of a token
        known = self.directory.bearers.known(token_hash)
        _check_audience(known or await self._query(token, token_hash), resource)

    def holder_of(
        self, key_digest: str, server: str, headers: Headers, scope: Mapping[str, Any]
    ) -> str:
        """Return the holder of a verified token; a renewed token has the same holder.

        Raises:
            UnauthorizedError: the token expired, was issued for another endpoint, or lacks the
                required DPoP proof.

        """
        bearer = self.directory.bearers.known(hash_of(key_digest))
        if bearer is None:
            raise UnauthorizedError("The access token has expired. Refresh it, or sign in again.")
        _check_audience(bearer, self.resource(server))
        self.check_proof(bearer, headers, scope)
        return bearer.holder

    def check_proof(self, bearer: Bearer, headers: Headers, scope: Mapping[str, Any]) -> None:
        """Check the DPoP proof that a token or its access rule requires.

        Raises:
            UnauthorizedError: the proof is missing or invalid.

        """
        self.dpop.check(bearer, headers, scope, required=self._requires_bound(bearer))

    def _requires_bound(self, bearer: Bearer) -> bool:
        """Return whether the token's access rule accepts only bound tokens."""
        rule = self.directory.now.configuration.access.get(bearer.access)
        return rule is not None and rule.dpop

    async def form_key_digest(self, secret: str) -> str:
        """Return the digest of a key or token that was entered in a form.

        Raises:
            UnauthorizedError: the token needs a DPoP proof, which a form cannot contain.

        """
        key_digest = key_digest_of(secret)
        if _TOKEN.fullmatch(b"bearer %b" % secret.encode()):
            await self.verify(secret, self.resource(""))
            bearer = self.directory.bearers.known(hash_of(key_digest))
            if bearer is not None and (bearer.jkt or self._requires_bound(bearer)):
                raise InvalidProofError(
                    "The access token requires a DPoP proof, which a form cannot contain. "
                    "Use an API key."
                )
        return key_digest

    async def _query(self, token: str, token_hash: str) -> Bearer:
        if not self.enabled:
            raise UnauthorizedError(INVALID_KEY)
        if self._queries >= MAX_QUERIES:
            raise OverloadedError("Too many new access tokens are being verified. Retry.")
        self._queries += 1
        try:
            bearer = await self.requests.request(TokenQuery(token=token), Bearer, SECONDS)
        finally:
            self._queries -= 1
        self.directory.bearers.take(token_hash, bearer)
        return bearer

    # -- metadata and challenges ---------------------------------------------------------------

    def metadata_response(self, scope: dict[str, Any]) -> Response | None:
        """Return the metadata document of a path (RFC 9728), or None for any other path."""
        path: str = scope["path"]
        if not path.startswith(WELL_KNOWN) or not self.enabled or scope["method"] != "GET":
            return None
        resource_path = path.removeprefix(WELL_KNOWN)
        if resource_path == API and self.admin_enabled:
            return self._metadata(self.admin_resource, list(ADMINISTRATION))
        found = _PATH.fullmatch(resource_path)
        if found is None or (found[1] and not self.directory.now.serves(found[1])):
            return None
        return self._metadata(self.resource(found[1] or ""), self._scopes)

    def _metadata(self, resource: str, scopes: list[str]) -> Response:
        rules = self.directory.now.configuration.access.values()
        document = {
            "resource": resource,
            "authorization_servers": [self.public_url],
            "scopes_supported": scopes,
            "bearer_methods_supported": ["header"],
            "resource_name": "Toolbus",
            "dpop_signing_alg_values_supported": ALGORITHMS,
            "dpop_bound_access_tokens_required": all(rule.dpop for rule in rules),
        }
        return Response(200, msgspec.json.encode(document), (_CACHEABLE,))

    def challenge(self, path: str) -> bytes:
        """Return the sign-in parameters of a 401 challenge; empty if sign-in is disabled."""
        if not self.enabled:
            return b""
        return self._metadata_url(path) + f', scope="{" ".join(self._scopes)}"'.encode()

    @property
    def admin_challenge(self) -> bytes:
        """The parameters of a challenge at `/api`; empty if `admin_enabled` is false."""
        return self._url_parameter(API) if self.admin_enabled else b""

    def with_metadata_url(self, answer: Response, path: str) -> Response:
        """Return the response with the metadata URL in its challenge, if there is a challenge."""
        headers = tuple(
            (name, value + self._metadata_url(path) if _lacks_metadata(name, value) else value)
            for name, value in answer.headers
        )
        return Response(answer.status, answer.body, headers, answer.rejected)

    @property
    def _scopes(self) -> list[str]:
        return first(self.directory.now.configuration)

    def _metadata_url(self, path: str) -> bytes:
        found = _PATH.fullmatch(path)
        served = found and path and (found[1] is None or self.directory.now.serves(found[1]))
        return self._url_parameter(path if served else "/mcp")

    def _url_parameter(self, path: str) -> bytes:
        return f', resource_metadata="{self.public_url}{WELL_KNOWN}{path}"'.encode()


def _check_audience(bearer: Bearer, resource: str) -> None:
    if bearer.resource != resource:
        raise UnauthorizedError(
            "The access token was issued for another endpoint. Sign in again for this one."
        )


def _lacks_metadata(name: bytes, value: bytes) -> bool:
    return name == b"www-authenticate" and b"resource_metadata" not in value


def public_names(public_url: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the host and the origin of the public URL, which are allowed without being listed."""
    parts = urlsplit(public_url)
    if not parts.netloc:
        return frozenset(), frozenset()
    return frozenset({parts.netloc.lower()}), frozenset(
        {f"{parts.scheme}://{parts.netloc}".lower()}
    )
