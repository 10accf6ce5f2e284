"""Who Toolbus is to an authorization server: declared, by its own document, or registered there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any

from toolbus_common.config import Server
from toolbus_common.config.servers.oauth import (
    BY_AUTHORITY,
    BY_CERTIFICATE,
    BY_KEY,
    CLIENT_CREDENTIALS,
    WORKLOAD,
    OAuthClient,
)
from toolbus_common.secrets import SecretError, Secrets, filled
from toolbus_oauth.keys.unverified_jwt import peeked
from toolbus_oauth.upstreams.connections.records import Link
from toolbus_oauth.upstreams.discovery import AnotherClientError, DiscoveryError, Found
from toolbus_oauth.upstreams.dynamic_registration import Enrolling, liked, terms_at

RETURN = "/oauth/connected"
ALGORITHM = "ES256"


@dataclass(frozen=True, slots=True)
class Identity:
    """An id, and what proves it: a secret, a private key, what others signed; or nothing.

    `shown` is a certificate with its key, as one text in PEM form, which TLS shows beside that.
    """

    id: str
    method: str
    secret: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    assertion: str = field(default="", repr=False)
    shown: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Clienthood:
    """Finds who we are. `issuer` is this gateway's URL, `document` where our document lies."""

    issuer: str
    document: str
    enrolling: Enrolling
    secrets: Secrets
    is_named: Callable[[str, Server], bool]

    def redirect(self, link: Link) -> str:
        """Where browsers come back to: a place of the issuer's own, or that of our document.

        What answers at its own was asked in its name. At the document's anybody who was sent our
        document may answer, so only those come back there who must say who they are.
        """
        shared = link.says_issuer and link.client_id == self.document
        return f"{self.issuer}{RETURN}" if shared else self.redirect_at(link.issuer)

    def redirect_at(self, issuer: str) -> str:
        """The place of an issuer's own."""
        return f"{self.issuer}{RETURN}/{sha256(issuer.encode()).hexdigest()[:32]}"

    @property
    def metadata(self) -> dict[str, Any]:
        """Our client document; an issuer's own place in it would be open to every issuer."""
        return {
            "client_id": self.document,
            "client_name": "Toolbus",
            "client_uri": self.issuer,
            "redirect_uris": [f"{self.issuer}{RETURN}"],
            "grant_types": ["authorization_code", "refresh_token", CLIENT_CREDENTIALS],
            "response_types": ["code"],
            "application_type": "web",
            "token_endpoint_auth_method": BY_KEY,
            "token_endpoint_auth_signing_alg": ALGORITHM,
            "jwks_uri": f"{self.issuer}/oauth/client-keys",
        }

    async def at(self, server: Server, found: Found) -> Identity:
        """Who we are at this very issuer, and no other. Raises `DiscoveryError`."""
        declared = await self._declared(server, found)
        if declared is not None:
            return declared
        if self.document and found.takes_documents and (found.says_issuer or is_machine(server)):
            return Identity(self.document, _of_document(found))
        terms = terms_at(found, self.metadata, self.redirect_at(found.issuer))
        enrolled = await self.enrolling.at(server, found, terms)
        return Identity(enrolled.id, enrolled.method, enrolled.secret)

    async def again(self, server: Server, issuer: str, client_id: str, method: str) -> Identity:
        """The one that got a token, with its secret as it is now. Raises `DiscoveryError`."""
        declared = server.oauth.clients.get(issuer) if server.oauth is not None else None
        if declared is not None and declared.id == client_id:
            return await self._as_declared(server, declared, method)
        if client_id == self.document:
            return Identity(client_id, method)
        enrolled = await self.enrolling.known(issuer, client_id)
        if enrolled is None:
            raise AnotherClientError(
                "Toolbus is another client there than the one that got the token"
            )
        return Identity(client_id, method, enrolled.secret)

    async def _declared(self, server: Server, found: Found) -> Identity | None:
        told = server.oauth.clients.get(found.issuer) if server.oauth is not None else None
        if told is None:
            return None
        return await self._as_declared(server, told, told.method or _own(server, told, found))

    async def _as_declared(self, server: Server, told: OAuthClient, method: str) -> Identity:
        secret, key = await self._secret(told.secret), await self._secret(told.key)
        shown = await self._secret(told.certificate)
        # What a workload is granted by does not prove the client as well.
        own = told.assertion if method == BY_KEY and not is_workload(server) else ""
        assertion = await self._assertion(own)
        if shown:
            return Identity(told.id, method, secret, "", assertion, f"{shown}\n{key}\n")
        return Identity(told.id, method, secret, key, assertion)

    async def workload(self, server: Server, issuer: str) -> str:
        """What vouches for the workload at this very issuer. Raises `DiscoveryError`."""
        told = server.oauth.clients.get(issuer) if server.oauth is not None else None
        if told is None or not told.assertion:
            raise DiscoveryError(f"no client with an assertion is declared for {issuer}")
        return await self._assertion(told.assertion)

    async def _assertion(self, reference: str) -> str:
        """What others signed for us, while it is good: one that has ended is shown to nobody."""
        text = (await self._secret(reference)).strip() if reference else ""
        ends = peeked(text)[1].get("exp")
        if isinstance(ends, int | float) and ends <= time():
            raise DiscoveryError("its client's assertion has expired; see that it is renewed")
        return text

    async def _secret(self, reference: str) -> str:
        try:
            return filled(reference, await self.secrets.read([reference]))
        except SecretError as error:
            raise DiscoveryError(f"its client's secret: {error}") from error


def is_machine(server: Server) -> bool:
    """Whether Toolbus goes there in its own name, and no browser is sent anywhere."""
    return server.oauth is not None and server.oauth.grant in (CLIENT_CREDENTIALS, WORKLOAD)


def is_workload(server: Server) -> bool:
    """Whether what Toolbus runs on vouches for it there."""
    return server.oauth is not None and server.oauth.grant == WORKLOAD


def asks_nobody(server: Server) -> bool:
    """Whether no person is sent to its authorization server, whoever the token is for."""
    return server.oauth is not None and server.oauth.grant != "consent"


def _own(server: Server, told: OAuthClient, found: Found) -> str:
    """How a declared client proves itself that does not say: with what it has."""
    listed = "token_endpoint_auth_methods_supported"
    signed = bool(told.assertion) and not is_workload(server)
    if told.certificate and not (told.secret or signed):
        return next((each for each in BY_CERTIFICATE if found.has(listed, each)), BY_AUTHORITY)
    if signed or (told.key and not told.certificate):
        return BY_KEY
    return liked(found, secret=bool(told.secret))


def _of_document(found: Found) -> str:
    """With a document of our own: by signature where that is taken, else as a public client."""
    return BY_KEY if found.has("token_endpoint_auth_methods_supported", BY_KEY) else "none"
