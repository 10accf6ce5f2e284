"""From a server's refusal to the authorization server that counts (RFC 9728, RFC 8414, OIDC)."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from toolbus_common import strict_json
from toolbus_common.config import Server
from toolbus_common.egress import EgressError, target_of
from toolbus_oauth.storage.http_client import Fetched, Fetcher, FetchError

KEPT_SECONDS, AGAIN_SECONDS = 300.0, 1.0
MOST_KNOWN = 4096
MOST_SCOPES, LONGEST_SCOPE = 64, 200
LONGEST_URL = 2048
ALIASES = "mtls_endpoint_aliases"
_OK = 200
_SCHEME = re.compile(r"(?:^|,)\s*(?:bearer|dpop)\s+(?=[^\s=,]+\s*=)", re.IGNORECASE)
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class DiscoveryError(Exception):
    """A server that cannot be authorized at; the clause says why and what to do."""


class AnotherClientError(DiscoveryError):
    """Who got a token there is no client of ours any more: it cannot be renewed."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server says of how it wants to be called."""

    metadata: str = ""
    scopes: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The authorization server of a resource, and what it says of itself."""

    issuer: str
    resource: str
    scopes: tuple[str, ...]
    document: dict[str, Any]

    def url(self, name: str) -> str:
        """One of its endpoints; empty where it has none."""
        return _url(self.document, name)

    def place(self, name: str, *, shows: bool) -> str:
        """The same for who shows a certificate there: its alias, if it has one (RFC 8705)."""
        aliases = self.document.get(ALIASES) if shows else None
        alias = _url(aliases, name) if isinstance(aliases, dict) else ""
        return alias or self.url(name)

    @property
    def says_issuer(self) -> bool:
        """Whether each of its answers names it (RFC 9207)."""
        return self.document.get("authorization_response_iss_parameter_supported") is True

    @property
    def takes_documents(self) -> bool:
        """Whether clients may be described by a document of their own."""
        return self.document.get("client_id_metadata_document_supported") is True

    def has(self, name: str, value: str) -> bool:
        """Whether a list of its holds this."""
        told = self.document.get(name)
        return isinstance(told, list) and value in told


@dataclass(slots=True)
class Discovery:
    """Looks where servers lead, and believes it for a while; `named` are the operator's servers."""

    fetcher: Fetcher
    named: Callable[[Server], bool]
    _known: dict[str, tuple[float, Found]] = field(default_factory=dict)

    async def found(self, server: Server, challenge: Challenge) -> Found:
        """The authorization server that counts. Raises `DiscoveryError`."""
        place = f"{server.oauth_place} {server.oauth.issuer if server.oauth else ''}"
        age = AGAIN_SECONDS if challenge.metadata or challenge.error else KEPT_SECONDS
        known = self._known.get(place)
        if known is not None and monotonic() - known[0] < age:
            return known[1]
        try:
            found = await self._look(server, challenge)
        except FetchError as error:
            raise DiscoveryError(f"its authorization server: {error}") from error
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[place] = monotonic(), found
        return found

    def is_named(self, url: str, server: Server) -> bool:
        """Whether the operator named where this leads: the server itself, or a declared issuer."""
        try:
            target = target_of(url)
            meant = {target_of(server.oauth_url)}
            if server.oauth is not None:
                told = (server.oauth.issuer, *server.oauth.clients)
                meant |= {target_of(each) for each in told if each}
        except EgressError:
            return False
        return target in meant and self.named(server)

    async def _look(self, server: Server, challenge: Challenge) -> Found:
        url = server.oauth_url
        wanted = server.oauth.issuer if server.oauth is not None else ""
        declared = server.oauth.resource if server.oauth is not None else ""
        scopes: tuple[str, ...] = ()
        told = None
        if declared or not (server.is_process or server.grpc):  # else nothing there speaks HTTP
            told = await self._resource(server, url, challenge.metadata)
        if told is None:  # of before RFC 9728: the server answers for itself (MCP 2025-03-26)
            issuer, resource = wanted or _origin(url), declared
        else:
            resource = str(told.get("resource", ""))
            if not covers(resource, url):
                raise DiscoveryError(
                    "its metadata is of another resource; its operator must mend 'resource'"
                )
            issuer, scopes = _chosen(told, wanted), scopes_in(told.get("scopes_supported"))
        document = await self._document(server, issuer)
        return Found(issuer, resource, scopes, document)

    async def _resource(self, server: Server, url: str, told: str) -> dict[str, Any] | None:
        parts = urlsplit(url)
        root = f"{_origin(url)}/.well-known/oauth-protected-resource"
        path = parts.path.rstrip("/")
        for place in [told] if told else [*([f"{root}{path}"] if path else []), root]:
            found = await self._get(server, place)
            if found.status == _OK:
                return _object(found)
        if told:
            raise DiscoveryError("the metadata that it names is not there")
        return None

    async def _document(self, server: Server, issuer: str) -> dict[str, Any]:
        parts = urlsplit(issuer)
        origin, path = _origin(issuer), parts.path.rstrip("/")
        places = [
            f"{origin}/.well-known/oauth-authorization-server{path}",
            f"{origin}/.well-known/openid-configuration{path}",
            *([f"{origin}{path}/.well-known/openid-configuration"] if path else []),
        ]
        for place in places:
            found = await self._get(server, place)
            if found.status != _OK:
                continue
            document = _object(found)
            if document.get("issuer") != issuer:
                raise DiscoveryError("its authorization server's metadata names another issuer")
            return document
        raise DiscoveryError("its authorization server tells nothing of itself")

    async def _get(self, server: Server, url: str) -> Fetched:
        return await self.fetcher.get(url, named=self.is_named(url, server))


def challenge_of(header: str) -> Challenge:
    """What a header WWW-Authenticate says of tokens, bound to a key or not. Pure."""
    told: dict[str, str] = {}
    found = _SCHEME.search(header)
    while found is not None:
        place = _read(header, found.end(), told)
        found = _SCHEME.search(header, place)
    metadata = told.get("resource_metadata", "")
    scopes = scopes_in(told.get("scope", "").split())
    return Challenge(metadata[:LONGEST_URL], scopes, told.get("error", ""))


def _read(header: str, place: int, told: dict[str, str]) -> int:
    """Read one challenge's parameters; the first of a name counts. Where they end."""
    while (each := _PARAMETER.match(header, place)) is not None:
        quoted = each[2]
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else each[3]
        told.setdefault(each[1].lower(), value)
        place = each.end()
    return place


def scopes_in(told: Any) -> tuple[str, ...]:
    """Scopes that can be asked for, of what somebody listed. Pure."""
    listed = told if isinstance(told, list) else []
    fine = (
        each
        for each in listed
        if isinstance(each, str) and len(each) <= LONGEST_SCOPE and _SCOPE.fullmatch(each)
    )
    return tuple(dict.fromkeys(fine))[:MOST_SCOPES]


def covers(resource: str, url: str) -> bool:
    """Whether metadata of this resource are of what lies at a URL: it, or what it lies below."""
    try:
        if target_of(resource) != target_of(url):
            return False
    except EgressError:
        return False
    told, own = urlsplit(resource), urlsplit(url)
    if told.fragment or told.query not in ("", own.query):
        return False
    above, path = told.path.rstrip("/"), own.path.rstrip("/")
    return path == above or path.startswith(f"{above}/")


def _chosen(told: dict[str, Any], wanted: str) -> str:
    listed = told.get("authorization_servers")
    issuers = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
    if not issuers:
        raise DiscoveryError("it names no authorization server")
    if wanted and wanted not in issuers:
        raise DiscoveryError(
            "it no longer names the issuer that is declared for it; see where it moved, and "
            "declare that as oauth.issuer"
        )
    issuer = wanted or issuers[0]
    if len(issuer) > LONGEST_URL:
        raise DiscoveryError("the name of its authorization server is too long")
    return issuer


def _url(told: dict[str, Any], name: str) -> str:
    found = told.get(name)
    return found if isinstance(found, str) and len(found) <= LONGEST_URL else ""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _object(found: Fetched) -> dict[str, Any]:
    try:
        return strict_json.members(found.body)
    except strict_json.StrictJSONError as error:
        raise DiscoveryError("its metadata is no JSON object") from error
