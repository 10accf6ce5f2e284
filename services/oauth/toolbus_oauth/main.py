"""The oauth service: sign people in, issue access tokens, obtain tokens for upstream servers.

subscribes  the buckets tb_config, tb_tokens and tb_person_keys
publishes   the events GrantCreated, GrantEnded, SignInDenied, ConnectionCreated, ConnectionEnded;
            HookRequest to plugins at the point on_login
answers     PageRequest, TokenQuery and SignInLinkQuery (ingress), UpstreamTokenQuery and
            IdentityKeyQuery (executor), IdentityRequest (operators)
owns        the buckets tb_oauth, tb_oauth_clients, tb_oauth_brief, tb_tokens and tb_connections,
            the keys that encrypt them, and the keys that sign tokens and identity headers
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from toolbus_common.access.config_snapshot import ConfigProjection, ConfigView
from toolbus_common.access.oauth_scopes import CONSOLE_CLIENT, CONSOLE_REDIRECT
from toolbus_common.access.token_cache import TokenCache
from toolbus_common.config import Configuration
from toolbus_common.config_store.literal_secrets import Reader, keys_at
from toolbus_common.config_store.operator_targets import ConfirmedTargets
from toolbus_common.contracts import (
    IdentityKeyQuery,
    IdentityRequest,
    PageRequest,
    SignInLinkQuery,
    TokenQuery,
    UpstreamTokenQuery,
)
from toolbus_common.crypto.dpop.replay_check import Nonces, ProofChecker
from toolbus_common.crypto.key_file import accepted_keys, load_key, read_key
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import Tls
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import (
    CONFIG,
    CONNECTIONS,
    OAUTH,
    OAUTH_BRIEF,
    OAUTH_CLIENTS,
    TOKENS,
)
from toolbus_common.plugins.requests import PluginRequests, ejected
from toolbus_common.privacy.service_keys import use_person_keys
from toolbus_common.secrets import Secrets, key_services_of, stores_of
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_oauth.account_page.overview import AccessOverview
from toolbus_oauth.accounts.local_accounts import Accounts
from toolbus_oauth.accounts.oidc_providers import Providers
from toolbus_oauth.accounts.sign_in_links import SignInLinks
from toolbus_oauth.accounts.sign_in_plugins import SignInPlugins
from toolbus_oauth.admin import IdentityAdmin
from toolbus_oauth.clients.metadata_documents import ClientDocuments
from toolbus_oauth.clients.registry import AUTHORIZATION_CODE, ClientRegistry
from toolbus_oauth.keys.identity_keys import IdentityKeys
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.oauth_client.token_client import TokenClient
from toolbus_oauth.router import Router
from toolbus_oauth.server import metadata
from toolbus_oauth.server.authorize_flow import AuthorizeFlow
from toolbus_oauth.server.authorize_request import AuthorizationRequestParser
from toolbus_oauth.server.device_flow import DeviceFlow
from toolbus_oauth.server.dpop_binding import DpopBinding
from toolbus_oauth.server.grants import Grants, Lifetimes
from toolbus_oauth.server.introspection import TokenValidator
from toolbus_oauth.server.jwt_bearer import AssertionVerifier
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.server.token_endpoint import TokenEndpoint
from toolbus_oauth.server.token_exchange import TokenExchange
from toolbus_oauth.settings import Settings
from toolbus_oauth.storage.records import Client
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.envelope_encryption import Envelope, reencrypt
from toolbus_oauth.upstreams.connections.master_keys import Masters
from toolbus_oauth.upstreams.factory import UpstreamOAuth, build_upstream_oauth
from toolbus_oauth.upstreams.issued_tokens import IssuedTokens

log = logging.getLogger(__name__)

DAY = 86_400.0
MAX_REQUESTS, MAX_PER_HOST = 16, 4  # unauthenticated requests can cause outbound requests


@dataclass(slots=True)
class WatchedState:
    """Configuration, confirmed targets and bearers, which the service watches in buckets."""

    directory: ConfigView
    named: ConfirmedTargets
    bearers: TokenCache = field(default_factory=TokenCache)

    def config(self) -> Configuration:
        """Return the current configuration."""
        return self.directory.now.configuration


class HttpClients(NamedTuple):
    """HTTP clients, one per purpose, so that slow clients or servers do not delay sign-ins."""

    providers: HttpClient
    clients: HttpClient
    servers: HttpClient


class Stores(NamedTuple):
    """Stores of the service; every store except `tokens` is encrypted."""

    seal: TokenSealer
    store: Store
    registered: Store
    brief: Store
    connections: Store
    tokens: Bucket


@dataclass(frozen=True, slots=True)
class Components:
    """Factory of the service's components."""

    service: Service
    settings: Settings
    state: WatchedState
    fetchers: HttpClients
    secrets: Secrets
    stores: Stores
    client_keys: SigningKeys
    plugins: SignInPlugins

    def grants(self) -> Grants:
        """Create the repository of grants."""
        settings, stores = self.settings, self.stores
        lifetimes = Lifetimes(settings.access_seconds, settings.grant_days * DAY)
        return Grants(
            settings.issuer, stores.store, stores.tokens, self.state.bearers, stores.seal,
            SigningKeys(settings.oauth_signing), lifetimes, Accounts(stores.store, stores.brief),
            self.state.config, self.service.events.publish,
        )  # fmt: skip

    def providers(self) -> Providers:
        """Create the OpenID providers."""
        state, common = (
            self.state,
            (self.settings.issuer, self.stores.brief, self.fetchers.providers),
        )
        tokens = TokenClient(self.fetchers.providers, self.client_keys)
        return Providers(*common, state.config, state.named.has, self.secrets, tokens)

    def upstream_oauth(self, providers: Providers, keys: SigningKeys) -> UpstreamOAuth:
        """Create the components that obtain tokens for upstream servers."""
        settings, stores, state = self.settings, self.stores, self.state
        return build_upstream_oauth(
            settings.issuer, settings.client_document, stores.connections, stores.brief,
            self.fetchers.servers, self.client_keys, IssuedTokens(settings.issuer, keys),
            self.secrets, providers,
            state.config, state.named.has, self.service.events.publish,
        )  # fmt: skip

    def routes(
        self, providers: Providers, resources: Resources, access_overview: AccessOverview
    ) -> Router:
        """Create the routes of the authorization server."""
        settings, grants, clients = self.settings, access_overview.grants, self._clients()
        devices = DeviceFlow(settings.issuer, self.stores.brief)
        authorize_flow = AuthorizeFlow(
            settings.issuer, self.stores.seal, self.stores.brief,
            AuthorizationRequestParser(clients, resources), grants.accounts, devices,
            providers, self.plugins, self.state.config, self.service.events.publish,
            settings.session_seconds, access_overview,
        )  # fmt: skip
        token_endpoint = TokenEndpoint(
            clients, grants, devices, self._assertions(providers, resources),
            TokenExchange(grants, resources.resolve), self.stores.brief, self._proving(), resources,
        )  # fmt: skip
        registration = settings.oauth_registration

        def described() -> dict[str, Any]:
            scopes = resources.scopes()
            return metadata.document(settings.issuer, scopes, registration=registration)

        return Router(authorize_flow, token_endpoint, clients, grants.keys, described, registration)

    def _clients(self) -> ClientRegistry:
        settings, stores = self.settings, self.stores
        documents = ClientDocuments(
            self.fetchers.clients, tuple(settings.oauth_clients.lower().split())
        )
        audiences = (settings.issuer, settings.token_endpoint)
        console = Client(
            CONSOLE_CLIENT, "The console of Toolbus", (f"{settings.issuer}{CONSOLE_REDIRECT}",),
            grants=(AUTHORIZATION_CODE,),
        )  # fmt: skip
        return ClientRegistry(
            stores.store, stores.registered, stores.brief, documents.client, audiences, console
        )

    def _assertions(self, providers: Providers, resources: Resources) -> AssertionVerifier:
        common = (self.settings.issuer, providers, self.stores.brief)
        return AssertionVerifier(*common, self.state.config, resources, self.plugins)

    def _proving(self) -> DpopBinding:
        nonces = Nonces(self.stores.seal) if self.settings.dpop_nonce else None
        return DpopBinding(self.settings.token_endpoint, ProofChecker(nonces))


def build(process: ProcessContext) -> Service:
    """Return the composed service. It opens connections only when it runs."""
    settings = Settings()
    service = Service("oauth", settings, process)
    service.shared_keys.add("oauth", *accepted_keys(settings.oauth_key))
    if not settings.oauth_vault_key:
        earlier = [read_key(path) for path in map(Path, settings.earlier_vaults) if path.is_file()]
        service.shared_keys.add("vault", load_key(settings.vault_file), *earlier)
    service.shared_keys.add("encryption", *keys_at("oauth", settings.encryption))
    decrypted = Reader.at("oauth", settings.encryption).opened
    state = WatchedState(
        ConfigView(service.share_projection(CONFIG, ConfigProjection), decrypted),
        service.share_projection(CONFIG, ConfirmedTargets),
    )
    use_person_keys(service)
    service.watch_bucket(TOKENS)(state.bearers.apply_change)
    plugins = PluginRequests(service.bus, lambda: state.config().plugins)
    service.details = lambda: {
        "issuer": settings.issuer,
        "issues_tokens": bool(state.config().access),
        **ejected(plugins),
    }

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        fetchers = _http_clients(settings)
        try:
            await _serve(service, settings, state, fetchers, plugins)
            yield
        finally:
            for fetcher in fetchers:
                fetcher.close()

    service.add_resource(opened)
    return service


async def _serve(
    service: Service,
    settings: Settings,
    state: WatchedState,
    fetchers: HttpClients,
    plugins: PluginRequests,
) -> None:
    secrets = Secrets(stores_of(os.environ), fresh=settings.secret_seconds)
    stores = await _stores(service, settings, secrets)
    keys = SigningKeys(settings.client_keys)
    sign_ins = SignInPlugins(plugins, state.config)
    parts = Components(service, settings, state, fetchers, secrets, stores, keys, sign_ins)
    grants, providers = parts.grants(), parts.providers()
    resources = Resources(settings.issuer, state.directory)
    upstream_oauth = parts.upstream_oauth(providers, grants.keys)
    access_overview = AccessOverview(grants, upstream_oauth.connections, state.config)
    routes = parts.routes(providers, resources, access_overview)
    identity_keys = IdentityKeys(settings.issuer, SigningKeys(settings.identity_keys))
    routes.more = {**upstream_oauth.paths(routes.authorize_flow), **identity_keys.paths}
    introspection = TokenValidator(grants, providers, stores.tokens, state.config, resources)
    links = SignInLinks(stores.brief)
    admin = IdentityAdmin(stores.store, stores.registered, grants, upstream_oauth.counter, links)
    broker, queue = service.broker, service.name
    broker.subscriber(
        UpstreamTokenQuery.SUBJECT, queue=queue, max_workers=UpstreamTokenQuery.AT_ONCE
    )(upstream_oauth.token_provider.answer)
    broker.subscriber(PageRequest.SUBJECT, queue=queue, max_workers=PageRequest.AT_ONCE)(
        routes.answer
    )
    broker.subscriber(TokenQuery.SUBJECT, queue=queue, max_workers=TokenQuery.AT_ONCE)(
        introspection.show
    )
    broker.subscriber(SignInLinkQuery.SUBJECT, queue=queue, max_workers=SignInLinkQuery.AT_ONCE)(
        links.redeem
    )
    broker.subscriber(IdentityKeyQuery.SUBJECT, queue=queue)(identity_keys.answer)
    broker.subscriber(IdentityRequest.SUBJECT, queue=queue)(admin.answer)


def _http_clients(settings: Settings) -> HttpClients:
    tls = Tls(settings.egress_ca)

    def client(max_in_progress: int) -> HttpClient:
        return HttpClient(
            CheckedResolver(settings.egress),
            tls,
            headers={"accept": "application/json"},
            max_in_progress=max_in_progress,
            max_per_host=MAX_PER_HOST,
        )

    return HttpClients(
        client(MAX_REQUESTS), client(MAX_REQUESTS), client(UpstreamTokenQuery.AT_ONCE)
    )


async def _stores(service: Service, settings: Settings, secrets: Secrets) -> Stores:
    keys = accepted_keys(settings.oauth_key)
    sealer = TokenSealer(*keys)
    store = Store(await service.bucket(OAUTH), sealer)
    registered = Store(await service.bucket(OAUTH_CLIENTS), sealer)
    if len(keys) > 1:  # rotation: no record may need the earlier key
        count = await store.reencrypt() + await registered.reencrypt()
        log.info("oauth.reencrypted", extra={"records": count})
    return Stores(
        sealer,
        store=store,
        registered=registered,
        brief=Store(await service.bucket(OAUTH_BRIEF), sealer),
        connections=await _connections(service, settings, secrets),
        tokens=await service.bucket(TOKENS),
    )


async def _connections(service: Service, settings: Settings, secrets: Secrets) -> Store:
    """Return the store of upstream tokens; records of earlier master keys are re-encrypted."""
    bucket = await service.bucket(CONNECTIONS)
    masters = Masters(secrets, key_services_of(os.environ), bucket)
    if settings.oauth_vault_key:
        newest = await masters.newest(settings.oauth_vault_key)
    else:
        newest = load_key(settings.vault_file)
    earlier = [await masters.earlier(each) for each in settings.earlier_vaults]
    envelope = Envelope(newest, earlier)
    if earlier:
        log.info("vault.reencrypted", extra={"records": await reencrypt(bucket, envelope)})
    return Store(bucket, envelope)
