"""Discovery of the authorization server of an upstream server (RFC 9728, RFC 8414, OIDC)."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from authlib.oauth2.rfc8414 import get_well_known_url
from authlib.oidc.discovery import get_well_known_url as get_openid_url

from toolbus_common import strict_json
from toolbus_common.config import Server
from toolbus_common.egress import EgressError, target_of
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest, HttpResponse
from toolbus_oauth.oauth_client.scope_values import scopes_in

CACHE_SECONDS, RECHECK_SECONDS = 300.0, 1.0
MAX_KNOWN = 4096
LONGEST_URL = 2048
ALIASES = "mtls_endpoint_aliases"
_OK = 200
_SCHEME = re.compile(r"(?:^|,)\s*(?:bearer|dpop)\s+(?=[^\s=,]+\s*=)", re.IGNORECASE)
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class DiscoveryError(Exception):
    """Authorization at a server is impossible; the message is a clause with cause and fix."""


class ClientReplacedError(DiscoveryError):
    """The client that obtained a token no longer exists, so the token cannot be renewed."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Content of a server's WWW-Authenticate header."""

    metadata: str = ""
    scopes: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """Authorization server of a resource, with its metadata."""

    issuer: str
    resource: str
    scopes: tuple[str, ...]
    document: dict[str, Any]

    def url(self, name: str) -> str:
        """Return the URL of an endpoint, or an empty string if the metadata does not have it."""
        return _url(self.document, name)

    def place(self, name: str, *, shows: bool) -> str:
        """Return an endpoint's URL.

        If the client `shows` a certificate, the alias for mutual TLS is preferred (RFC 8705).
        """
        aliases = self.document.get(ALIASES) if shows else None
        alias = _url(aliases, name) if isinstance(aliases, dict) else ""
        return alias or self.url(name)

    @property
    def says_issuer(self) -> bool:
        """Whether the server's authorization responses contain `iss` (RFC 9207)."""
        return self.document.get("authorization_response_iss_parameter_supported") is True

    @property
    def takes_documents(self) -> bool:
        """Whether the server supports client metadata documents."""
        return self.document.get("client_id_metadata_document_supported") is True

    def has(self, name: str, value: str) -> bool:
        """Return whether a list in the metadata contains a value."""
        listed = self.document.get(name)
        return isinstance(listed, list) and value in listed


@dataclass(slots=True)
class Discovery:
    """Discovery and cache of authorization servers.

    `named` returns whether an operator configured a server.
    """

    fetcher: HttpClient
    named: Callable[[Server], bool]
    _cache: dict[str, tuple[float, AuthorizationServer]] = field(default_factory=dict)

    async def found(self, server: Server, challenge: Challenge) -> AuthorizationServer:
        """Return the authorization server of an upstream server. Raises `DiscoveryError`."""
        key = f"{server.oauth_place} {server.oauth.issuer if server.oauth else ''}"
        age = RECHECK_SECONDS if challenge.metadata or challenge.error else CACHE_SECONDS
        cached = self._cache.get(key)
        if cached is not None and monotonic() - cached[0] < age:
            return cached[1]
        try:
            found = await self._fetch(server, challenge)
        except HttpError as error:
            raise DiscoveryError(f"its authorization server: {error}") from error
        if len(self._cache) >= MAX_KNOWN:
            self._cache.clear()
        self._cache[key] = monotonic(), found
        return found

    def is_named(self, url: str, server: Server) -> bool:
        """Return whether an operator configured a URL's host, for the server or an issuer."""
        try:
            target = target_of(url)
            named = {target_of(server.oauth_url)}
            if server.oauth is not None:
                issuers = (server.oauth.issuer, *server.oauth.clients)
                named |= {target_of(each) for each in issuers if each}
        except EgressError:
            return False
        return target in named and self.named(server)

    async def _fetch(self, server: Server, challenge: Challenge) -> AuthorizationServer:
        url = server.oauth_url
        wanted = server.oauth.issuer if server.oauth is not None else ""
        resource_name = server.oauth.resource if server.oauth is not None else ""
        scopes: tuple[str, ...] = ()
        metadata = None
        # Other transports have no HTTP metadata.
        if resource_name or not (server.is_process or server.grpc):
            metadata = await self._resource(server, url, challenge.metadata)
        if metadata is None:  # in MCP 2025-03-26, before RFC 9728, the server is the issuer
            issuer, resource = wanted or _origin(url), resource_name
        else:
            resource = str(metadata.get("resource", ""))
            if not is_resource_of(resource, url):
                raise DiscoveryError(
                    "its metadata describes another resource; its operator must fix 'resource'"
                )
            issuer, scopes = _chosen(metadata, wanted), scopes_in(metadata.get("scopes_supported"))
        document = await self._document(server, issuer)
        return AuthorizationServer(issuer, resource, scopes, document)

    async def _resource(self, server: Server, url: str, metadata_url: str) -> dict[str, Any] | None:
        parts = urlsplit(url)
        root = f"{_origin(url)}/.well-known/oauth-protected-resource"
        path = parts.path.rstrip("/")
        defaults = [*([f"{root}{path}"] if path else []), root]
        for candidate in [metadata_url] if metadata_url else defaults:
            found = await self._get(server, candidate)
            if found.status == _OK:
                return _object(found)
        if metadata_url:
            raise DiscoveryError("the metadata URL in its challenge does not exist")
        return None

    async def _document(self, server: Server, issuer: str) -> dict[str, Any]:
        base = issuer.rstrip("/")  # RFC 8414 section 3.1; Authlib does not remove the slash
        try:
            urls = [
                get_well_known_url(base, external=True),
                get_well_known_url(base, external=True, suffix="openid-configuration"),
                get_openid_url(base, external=True),
            ]
        except ValueError as error:
            raise DiscoveryError("the URL of its authorization server is not valid") from error
        for url in dict.fromkeys(urls):
            found = await self._get(server, url)
            if found.status != _OK:
                continue
            document = _object(found)
            if document.get("issuer") != issuer:
                raise DiscoveryError("its authorization server's metadata names another issuer")
            return document
        raise DiscoveryError("its authorization server publishes no metadata")

    async def _get(self, server: Server, url: str) -> HttpResponse:
        named = self.is_named(url, server)
        return await self.fetcher.send(HttpRequest("GET", url, operator_named=named))


def challenge_of(header: str) -> Challenge:
    """Parse the Bearer and DPoP challenges of a WWW-Authenticate header."""
    params: dict[str, str] = {}
    match = _SCHEME.search(header)
    while match is not None:
        position = _read_params(header, match.end(), params)
        match = _SCHEME.search(header, position)
    metadata = params.get("resource_metadata", "")
    scopes = scopes_in(params.get("scope", "").split())
    return Challenge(metadata[:LONGEST_URL], scopes, params.get("error", ""))


def _read_params(header: str, position: int, params: dict[str, str]) -> int:
    """Add the parameters of one challenge to `params` and return the end position.

    A name that `params` already contains is ignored.
    """
    while (each := _PARAMETER.match(header, position)) is not None:
        quoted = each[2]
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else each[3]
        params.setdefault(each[1].lower(), value)
        position = each.end()
    return position


def is_resource_of(resource: str, url: str) -> bool:
    """Return whether a resource identifier equals a URL or is a prefix of its path."""
    try:
        if target_of(resource) != target_of(url):
            return False
    except EgressError:
        return False
    named, actual = urlsplit(resource), urlsplit(url)
    if named.fragment or named.query not in ("", actual.query):
        return False
    prefix, path = named.path.rstrip("/"), actual.path.rstrip("/")
    return path == prefix or path.startswith(f"{prefix}/")


def _chosen(metadata: dict[str, Any], wanted: str) -> str:
    listed = metadata.get("authorization_servers")
    issuers = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
    if not issuers:
        raise DiscoveryError("its metadata lists no authorization server")
    if wanted and wanted not in issuers:
        raise DiscoveryError(
            "its metadata does not list the configured issuer; find its new issuer, and set "
            "oauth.issuer to that"
        )
    issuer = wanted or issuers[0]
    if len(issuer) > LONGEST_URL:
        raise DiscoveryError("the URL of its authorization server is too long")
    return issuer


def _url(metadata: dict[str, Any], name: str) -> str:
    found = metadata.get(name)
    return found if isinstance(found, str) and len(found) <= LONGEST_URL else ""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _object(found: HttpResponse) -> dict[str, Any]:
    try:
        return strict_json.members(found.body)
    except strict_json.StrictJSONError as error:
        raise DiscoveryError("its metadata is not a JSON object") from error
