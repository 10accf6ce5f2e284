"""Identity of Toolbus as a client: configured, from its client document, or registered."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from time import time
from typing import Any

from toolbus_common.config import Server
from toolbus_common.config.servers.oauth import (
    BY_AUTHORITY,
    BY_CERTIFICATE,
    BY_KEY,
    CLIENT_CREDENTIALS,
    ISSUED,
    WORKLOAD,
    OAuthClient,
)
from toolbus_common.secrets import SecretError, Secrets, filled
from toolbus_oauth.keys.unverified_jwt import parse_unverified
from toolbus_oauth.oauth_client.identity import ClientIdentity
from toolbus_oauth.upstreams.connections.records import Link
from toolbus_oauth.upstreams.discovery import (
    AuthorizationServer,
    ClientReplacedError,
    DiscoveryError,
)
from toolbus_oauth.upstreams.dynamic_registration import (
    DynamicRegistration,
    client_metadata,
    preferred_method,
)

CALLBACK = "/oauth/connected"
ALGORITHM = "ES256"
_client = partial(ClientIdentity, id_in_form=True)  # required by servers of the MCP SDK


@dataclass(frozen=True, slots=True)
class ClientIdentities:
    """Resolver of the identity that Toolbus has as a client of an issuer.

    `issuer` is the URL of this gateway. `document` is the URL of its client metadata document.
    """

    issuer: str
    document: str
    registrations: DynamicRegistration
    secrets: Secrets
    is_named: Callable[[str, Server], bool]

    def redirect(self, link: Link) -> str:
        """Return the redirect URI of a link: a URI per issuer, or the client document's URI.

        A response at the URI of an issuer belongs to a request to that issuer. All issuers share
        the document's URI, so it is used only with issuers that send `iss` (RFC 9207).
        """
        shared = link.says_issuer and link.client_id == self.document
        return f"{self.issuer}{CALLBACK}" if shared else self.redirect_at(link.issuer)

    def redirect_at(self, issuer: str) -> str:
        """Return the redirect URI of one issuer."""
        return f"{self.issuer}{CALLBACK}/{sha256(issuer.encode()).hexdigest()[:32]}"

    @property
    def metadata(self) -> dict[str, Any]:
        """The client metadata document; it lists only the shared redirect URI."""
        return {
            "client_id": self.document,
            "client_name": "Toolbus",
            "client_uri": self.issuer,
            "redirect_uris": [f"{self.issuer}{CALLBACK}"],
            "grant_types": ["authorization_code", "refresh_token", CLIENT_CREDENTIALS],
            "response_types": ["code"],
            "application_type": "web",
            "token_endpoint_auth_method": BY_KEY,
            "token_endpoint_auth_signing_alg": ALGORITHM,
            "jwks_uri": f"{self.issuer}/oauth/client-keys",
        }

    async def at(self, server: Server, found: AuthorizationServer) -> ClientIdentity:
        """Return the identity for a new token of this issuer. Raises `DiscoveryError`."""
        configured = await self._configured(server, found)
        if configured is not None:
            return configured
        if self.document and found.takes_documents and (found.says_issuer or is_machine(server)):
            return _client(self.document, _document_method(found))
        terms = client_metadata(found, self.metadata, self.redirect_at(found.issuer))
        enrolled = await self.registrations.at(server, found, terms)
        return _client(enrolled.id, enrolled.method, enrolled.secret)

    async def again(
        self, server: Server, issuer: str, client_id: str, method: str
    ) -> ClientIdentity:
        """Return the identity that obtained a token, with its current secret.

        Raises `DiscoveryError`.
        """
        configured = server.oauth.clients.get(issuer) if server.oauth is not None else None
        if configured is not None and configured.id == client_id:
            return await self._from_config(server, configured, method)
        if client_id == self.document:
            return _client(client_id, method)
        enrolled = await self.registrations.known(issuer, client_id)
        if enrolled is None:
            raise ClientReplacedError(
                "the client id that obtained the token has been replaced by another client id"
            )
        return _client(client_id, method, enrolled.secret)

    async def _configured(
        self, server: Server, found: AuthorizationServer
    ) -> ClientIdentity | None:
        client = server.oauth.clients.get(found.issuer) if server.oauth is not None else None
        if client is None:
            return None
        return await self._from_config(
            server, client, client.method or _default_method(server, client, found)
        )

    async def _from_config(
        self, server: Server, client: OAuthClient, method: str
    ) -> ClientIdentity:
        secret, key = await self._secret(client.secret), await self._secret(client.key)
        shown = await self._secret(client.certificate)
        # A workload's assertion is its grant, so it does not authenticate the client as well.
        reference = client.assertion if method == BY_KEY and not is_workload(server) else ""
        assertion = await self._assertion(reference)
        if shown:
            return _client(client.id, method, secret, "", assertion, f"{shown}\n{key}\n")
        return _client(client.id, method, secret, key, assertion)

    async def workload(self, server: Server, issuer: str) -> str:
        """Return the workload's assertion for this issuer. Raises `DiscoveryError`."""
        client = server.oauth.clients.get(issuer) if server.oauth is not None else None
        if client is None or not client.assertion:
            raise DiscoveryError(f"no client with an assertion is configured for {issuer}")
        return await self._assertion(client.assertion)

    async def _assertion(self, reference: str) -> str:
        """Return the external assertion. Raises `DiscoveryError` if it has expired."""
        text = (await self._secret(reference)).strip() if reference else ""
        ends = parse_unverified(text)[1].get("exp")
        if isinstance(ends, int | float) and ends <= time():
            raise DiscoveryError("the assertion of its client has expired; renew it at its source")
        return text

    async def _secret(self, reference: str) -> str:
        try:
            return filled(reference, await self.secrets.read([reference]))
        except SecretError as error:
            raise DiscoveryError(f"the secret of its client: {error}") from error


def is_machine(server: Server) -> bool:
    """Return whether Toolbus obtains tokens for itself, without a person."""
    return server.oauth is not None and server.oauth.grant in (CLIENT_CREDENTIALS, WORKLOAD)


def is_issued(server: Server) -> bool:
    """Return whether Toolbus issues the tokens itself."""
    return server.oauth is not None and server.oauth.grant == ISSUED


def is_workload(server: Server) -> bool:
    """Return whether Toolbus obtains tokens with the platform's workload identity."""
    return server.oauth is not None and server.oauth.grant == WORKLOAD


def needs_no_consent(server: Server) -> bool:
    """Return whether tokens are issued without a person's consent at the authorization server."""
    return server.oauth is not None and server.oauth.grant != "consent"


def _default_method(server: Server, client: OAuthClient, found: AuthorizationServer) -> str:
    """Return the authentication method of a client that is configured without a method."""
    listed = "token_endpoint_auth_methods_supported"
    signed = bool(client.assertion) and not is_workload(server)
    if client.certificate and not (client.secret or signed):
        return next((each for each in BY_CERTIFICATE if found.has(listed, each)), BY_AUTHORITY)
    if signed or (client.key and not client.certificate):
        return BY_KEY
    return preferred_method(found, secret=bool(client.secret))


def _document_method(found: AuthorizationServer) -> str:
    """Return the authentication method of the client document: by key if supported, else none."""
    return BY_KEY if found.has("token_endpoint_auth_methods_supported", BY_KEY) else "none"
