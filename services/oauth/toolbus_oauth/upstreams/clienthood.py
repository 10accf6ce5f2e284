"""Who Toolbus is to an authorization server: declared, by its own document, or registered there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any

import msgspec

from toolbus_common.declared import Server
from toolbus_common.declared.authorizing import (
    BY_AUTHORITY,
    BY_CERTIFICATE,
    BY_KEY,
    CLIENT_CREDENTIALS,
    WORKLOAD,
    OAuthClient,
)
from toolbus_common.secrets import SecretError, Secrets, filled
from toolbus_oauth.fetching import Fetcher, FetchError
from toolbus_oauth.peeking import peeked
from toolbus_oauth.store import Store
from toolbus_oauth.upstreams.discovery import AnotherClientError, DiscoveryError, Found, scopes_in
from toolbus_oauth.upstreams.records import Enrolled, Link

RETURN = "/oauth/connected"
METHODS = ("client_secret_basic", "client_secret_post", BY_KEY, "none")
_USUAL = "client_secret_basic"  # RFC 8414: where nothing is said
_CREATED = (200, 201)
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
    store: Store
    fetcher: Fetcher
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
        if self.document and _takes_documents(found) and (found.says_issuer or is_machine(server)):
            return Identity(self.document, _of_document(found))
        enrolled = await self.store.get(Enrolled, found.issuer)
        if enrolled is None:
            enrolled = await self._enrol(server, found)
        return Identity(enrolled.id, enrolled.method, enrolled.secret)

    async def again(self, server: Server, issuer: str, client_id: str, method: str) -> Identity:
        """The one that got a token, with its secret as it is now. Raises `DiscoveryError`."""
        declared = server.oauth.clients.get(issuer) if server.oauth is not None else None
        if declared is not None and declared.id == client_id:
            return await self._as_declared(server, declared, method)
        if client_id == self.document:
            return Identity(client_id, method)
        enrolled = await self.store.get(Enrolled, issuer)
        if enrolled is None or enrolled.id != client_id:
            raise AnotherClientError(
                "Toolbus is another client there than the one that got the token"
            )
        return Identity(client_id, method, enrolled.secret)

    async def forget(self, issuer: str) -> None:
        """The issuer does not know us any more."""
        await self.store.drop(Enrolled, issuer)

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

    async def _enrol(self, server: Server, found: Found) -> Enrolled:
        """Register there (RFC 7591)."""
        where = found.url("registration_endpoint")
        if not where:
            why = "lets no client register itself"
            if _takes_documents(found) and not found.says_issuer:
                why += ", and takes documents of clients without saying who answers (RFC 9207)"
            raise DiscoveryError(
                f"{found.issuer} {why}; register Toolbus there with the redirect URI "
                f"{self.redirect_at(found.issuer)}, and declare it under oauth.clients"
            )
        told = await self._registered(server, found, where)
        secret = told.get("client_secret", "")
        client_id, method = told.get("client_id"), told.get("token_endpoint_auth_method")
        if not isinstance(client_id, str) or not client_id or not isinstance(secret, str):
            raise DiscoveryError("its authorization server registered nobody")
        if method not in METHODS:
            method = _liked(found, secret=bool(secret))
        made = Enrolled(found.issuer, client_id, secret, method)
        if not await self.store.swap(found.issuer, made, 0):  # another replica was first
            return await self.store.get(Enrolled, found.issuer) or made
        return made

    async def _registered(self, server: Server, found: Found, where: str) -> dict[str, Any]:
        kept = ("client_name", "client_uri", "response_types", "application_type")
        asked = {name: self.metadata[name] for name in kept}
        asked["redirect_uris"] = [self.redirect_at(found.issuer)]
        asked["grant_types"] = ["authorization_code", "refresh_token"]
        way = asked["token_endpoint_auth_method"] = _liked(found, secret=True)
        if way == BY_KEY:
            asked["jwks_uri"] = self.metadata["jwks_uri"]
        known = scopes_in(found.document.get("scopes_supported")) or found.scopes
        if known:  # of all servers of this issuer: some let a client ask for no others later
            asked["scope"] = " ".join(known)
        headers = {"content-type": "application/json"}
        body, named = msgspec.json.encode(asked), self.is_named(where, server)
        try:
            answer = await self.fetcher.post(where, body, headers, named=named)
            told: dict[str, Any] = msgspec.json.decode(answer.body, type=dict[str, Any])
        except (FetchError, msgspec.DecodeError, RecursionError) as error:
            raise DiscoveryError(f"its authorization server registers nobody: {error}") from error
        if answer.status not in _CREATED:
            raise DiscoveryError(
                f"{found.issuer} does not register Toolbus (it answers {answer.status}); register "
                f"it with the redirect URI {self.redirect_at(found.issuer)}, and declare it under "
                "oauth.clients"
            )
        return told


def _takes_documents(found: Found) -> bool:
    return found.document.get("client_id_metadata_document_supported") is True


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
    return _liked(found, secret=bool(told.secret))


def _liked(found: Found, *, secret: bool) -> str:
    """The first of our ways that the server takes."""
    listed = found.document.get("token_endpoint_auth_methods_supported")
    taken = listed if isinstance(listed, list) else [_USUAL]
    ways = METHODS if secret else ("none", BY_KEY)
    return next((each for each in ways if each in taken), ways[0])


def _of_document(found: Found) -> str:
    """With a document of our own: by signature where that is taken, else as a public client."""
    return BY_KEY if found.has("token_endpoint_auth_methods_supported", BY_KEY) else "none"
