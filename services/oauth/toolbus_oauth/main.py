"""The oauth service: who somebody is, which client may act for them, and tokens that say so.

hears   the buckets tb_config, tb_tokens and tb_person_keys
says    the events GrantGiven, GrantEnded, SignInRefused, ConnectionMade, ConnectionEnded
answers PageRequest and TokenQuery, of ingress; UpstreamTokenQuery and IdentityKeyQuery, of
        executor; IdentityRequest
owns    the buckets tb_oauth, tb_oauth_clients, tb_oauth_brief, tb_tokens and tb_connections; the
        key they are sealed with, those that tokens are signed with, and those Toolbus shows
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.access.token_cache import Bearers
from toolbus_common.config import Configuration
from toolbus_common.config_store.literal_secrets import Reader
from toolbus_common.config_store.operator_targets import Named
from toolbus_common.contracts import (
    IdentityKeyQuery,
    IdentityRequest,
    PageRequest,
    TokenQuery,
    UpstreamTokenQuery,
)
from toolbus_common.crypto.dpop.replay_check import Nonces, ProofChecker
from toolbus_common.crypto.key_file import load_key
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.egress.tls import Tls
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.topology import (
    CONFIG,
    CONNECTIONS,
    OAUTH,
    OAUTH_BRIEF,
    OAUTH_CLIENTS,
    TOKENS,
)
from toolbus_common.secrets import Secrets, key_services_of, stores_of
from toolbus_common.secrets.master_keys import Masters
from toolbus_common.service.privacy import know_people
from toolbus_common.service.service import Service
from toolbus_oauth.account_page.overview import Holdings
from toolbus_oauth.accounts.local_accounts import Accounts
from toolbus_oauth.accounts.oidc_providers import Providers
from toolbus_oauth.admin import Office
from toolbus_oauth.clients.metadata_documents import Documents
from toolbus_oauth.clients.registry import Clients
from toolbus_oauth.keys.identity_keys import Identifying
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.router import Routes
from toolbus_oauth.server import metadata
from toolbus_oauth.server.authorize_flow import Browsing
from toolbus_oauth.server.authorize_request import Asking
from toolbus_oauth.server.device_flow import Devices
from toolbus_oauth.server.dpop_binding import Proving
from toolbus_oauth.server.grants import Grants, Lifetimes
from toolbus_oauth.server.introspection import Showing
from toolbus_oauth.server.jwt_bearer import Assertions
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.server.token_endpoint import Redeeming
from toolbus_oauth.server.token_exchange import Exchanging
from toolbus_oauth.settings import Settings
from toolbus_oauth.storage.http_client import Fetcher
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.envelope_encryption import Envelope, seal_anew
from toolbus_oauth.upstreams.factory import Upstreams, upstreams

log = logging.getLogger(__name__)

DAY = 86_400.0


@dataclass(slots=True)
class Known:
    """What the service hears."""

    directory: ConfigProjection
    named: Named = field(default_factory=Named)
    bearers: Bearers = field(default_factory=Bearers)

    def hear(self, change: Change | None) -> None:
        """Take one change of what is declared: a service that has heard it knows all of it."""
        self.named.hear(change)
        self.directory.hear(change)

    def declared(self) -> Configuration:
        """What is declared now."""
        return self.directory.now.declaration


class Fetchers(NamedTuple):
    """Apart, so that slow documents of clients, and slow servers, keep nobody from signing in."""

    providers: Fetcher
    clients: Fetcher
    servers: Fetcher


class Kept(NamedTuple):
    """What the service keeps: sealed, but for who holds which token."""

    seal: TokenSealer
    store: Store
    registered: Store
    brief: Store
    connections: Store
    tokens: Bucket


@dataclass(frozen=True, slots=True)
class Parts:
    """Makes what the service consists of."""

    service: Service
    settings: Settings
    known: Known
    fetchers: Fetchers
    secrets: Secrets
    kept: Kept

    def grants(self) -> Grants:
        """What people let clients do."""
        settings, kept = self.settings, self.kept
        lifetimes = Lifetimes(settings.access_seconds, settings.grant_days * DAY)
        return Grants(
            settings.issuer, kept.store, kept.tokens, self.known.bearers, kept.seal,
            SigningKeys(settings.oauth_signing), lifetimes, Accounts(kept.store, kept.brief),
            self.known.declared, self.service.events.publish,
        )  # fmt: skip

    def providers(self) -> Providers:
        """Who else vouches for people."""
        known, place = self.known, (self.settings.issuer, self.kept.brief, self.fetchers.providers)
        return Providers(*place, known.declared, known.named.has, self.secrets)

    def upstreams(self, providers: Providers) -> Upstreams:
        """Toolbus as a client of others."""
        settings, kept, known = self.settings, self.kept, self.known
        return upstreams(
            settings.issuer, settings.client_document, kept.connections, kept.brief,
            self.fetchers.servers, SigningKeys(settings.client_keys), self.secrets, providers,
            known.declared, known.named.has, self.service.events.publish,
        )  # fmt: skip

    def routes(self, providers: Providers, resources: Resources, holdings: Holdings) -> Routes:
        """The authorization server."""
        settings, grants, clients = self.settings, holdings.grants, self._clients()
        devices = Devices(settings.issuer, self.kept.brief)
        browsing = Browsing(
            settings.issuer, self.kept.seal, self.kept.brief, Asking(clients, resources),
            grants.accounts, devices, providers, self.known.declared, self.service.events.publish,
            settings.session_seconds, holdings,
        )  # fmt: skip
        redeeming = Redeeming(
            clients, grants, devices, self._assertions(providers, resources),
            Exchanging(grants, resources.meant), self.kept.brief, self._proving(), resources,
        )  # fmt: skip
        registration = settings.oauth_registration

        def described() -> dict[str, Any]:
            scopes = resources.scopes()
            return metadata.document(settings.issuer, scopes, registration=registration)

        return Routes(browsing, redeeming, clients, grants.keys, described, registration)

    def _clients(self) -> Clients:
        settings, kept = self.settings, self.kept
        documents = Documents(self.fetchers.clients, tuple(settings.oauth_clients.lower().split()))
        audiences = (settings.issuer, settings.token_endpoint)
        return Clients(kept.store, kept.registered, kept.brief, documents.client, audiences)

    def _assertions(self, providers: Providers, resources: Resources) -> Assertions:
        place = (self.settings.issuer, providers, self.kept.brief)
        return Assertions(*place, self.known.declared, resources)

    def _proving(self) -> Proving:
        nonces = Nonces(self.kept.seal) if self.settings.dpop_nonce else None
        return Proving(self.settings.token_endpoint, ProofChecker(nonces))


def build(exchange: LocalTransport) -> Service:
    """Wire the service. Nothing connects until it runs."""
    settings = Settings()
    service = Service("oauth", settings, exchange)
    known = Known(ConfigProjection(Reader.at("oauth", settings.sealing).opened))
    know_people(service)
    service.watch_bucket(CONFIG)(known.hear)
    service.watch_bucket(TOKENS)(known.bearers.hear)
    service.details = lambda: {
        "issuer": settings.issuer,
        "gives_tokens": bool(known.declared().access),
    }

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        fetchers = _fetchers(settings)
        try:
            await _serve(service, settings, known, fetchers)
            yield
        finally:
            for fetcher in fetchers:
                fetcher.close()

    service.add_resource(opened)
    return service


async def _serve(service: Service, settings: Settings, known: Known, fetchers: Fetchers) -> None:
    secrets = Secrets(stores_of(os.environ), fresh=settings.secret_seconds)
    kept = await _kept(service, settings, secrets)
    parts = Parts(service, settings, known, fetchers, secrets, kept)
    grants, providers = parts.grants(), parts.providers()
    resources = Resources(settings.issuer, known.directory)
    others = parts.upstreams(providers)
    holdings = Holdings(grants, others.connections, known.declared)
    routes = parts.routes(providers, resources, holdings)
    identifying = Identifying(settings.issuer, SigningKeys(settings.identity_keys))
    routes.more = {**others.paths(routes.browsing), **identifying.paths}
    showing = Showing(grants, providers, kept.tokens, known.declared, resources)
    office = Office(kept.store, kept.registered, grants, others.counter)
    service.answer_query(UpstreamTokenQuery)(others.telling.answer)
    service.answer_query(IdentityKeyQuery)(identifying.tell)
    service.answer_query(PageRequest)(routes.answer)
    service.answer_query(TokenQuery)(showing.show)
    service.answer_query(IdentityRequest)(office.answer)


def _fetchers(settings: Settings) -> Fetchers:
    egress, tls = settings.egress, Tls(settings.egress_ca)
    at_once = UpstreamTokenQuery.AT_ONCE
    return Fetchers(Fetcher(egress, tls), Fetcher(egress, tls), Fetcher(egress, tls, at_once))


async def _kept(service: Service, settings: Settings, secrets: Secrets) -> Kept:
    seal = TokenSealer(load_key(settings.oauth_key))
    return Kept(
        seal,
        store=Store(await service.bucket(OAUTH), seal),
        registered=Store(await service.bucket(OAUTH_CLIENTS), seal),
        brief=Store(await service.bucket(OAUTH_BRIEF), seal),
        connections=await _connections(service, settings, secrets),
        tokens=await service.bucket(TOKENS),
    )


async def _connections(service: Service, settings: Settings, secrets: Secrets) -> Store:
    """Tokens for servers; what an earlier master key sealed is sealed anew."""
    bucket = await service.bucket(CONNECTIONS)
    masters = Masters(secrets, key_services_of(os.environ), bucket)
    if settings.oauth_vault_key:
        newest = await masters.newest(settings.oauth_vault_key)
    else:
        newest = load_key(settings.vault_file)
    earlier = [await masters.earlier(each) for each in settings.earlier_vaults]
    envelope = Envelope(newest, earlier)
    if earlier:
        log.info("vault.sealed_anew", extra={"records": await seal_anew(bucket, envelope)})
    return Store(bucket, envelope)
