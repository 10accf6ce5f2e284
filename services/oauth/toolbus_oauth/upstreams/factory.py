"""Composition of the components that obtain tokens for upstream servers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import Event, PageReply
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.secrets import Secrets
from toolbus_oauth.accounts.oidc_providers import Providers
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.oauth_client.token_client import TokenClient
from toolbus_oauth.server.authorize_flow import AuthorizeFlow
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.admin import ConnectionsAdmin
from toolbus_oauth.upstreams.client_identity import CALLBACK, ClientIdentities
from toolbus_oauth.upstreams.connection_repository import ConnectionRepository
from toolbus_oauth.upstreams.connections.renewal_lock import RenewalLock
from toolbus_oauth.upstreams.discovery import Discovery
from toolbus_oauth.upstreams.dynamic_registration import DynamicRegistration
from toolbus_oauth.upstreams.id_jag import IdentityAssertions
from toolbus_oauth.upstreams.issued_tokens import IssuedTokens
from toolbus_oauth.upstreams.token_provider import TokenProvider
from toolbus_oauth.upstreams.web.connect_flow import PREFIX, ConnectFlow
from toolbus_oauth.web.request import Handler, Request, cacheable_response


@dataclass(frozen=True, slots=True)
class UpstreamOAuth:
    """Components for upstream tokens. `token_provider` serves executor, and `counter` operators."""

    token_provider: TokenProvider
    counter: ConnectionsAdmin
    clients: ClientIdentities
    connections: ConnectionRepository
    keys: SigningKeys
    config: Callable[[], Configuration]

    def paths(self, authorize_flow: AuthorizeFlow) -> Mapping[tuple[str, str], Handler]:
        """Return the HTTP routes of these components."""
        parts = (self.connections, self.token_provider, self.clients, self.config)
        pages = ConnectFlow(authorize_flow, self.token_provider.brief, *parts)

        async def document(request: Request) -> PageReply:  # noqa: ARG001
            return cacheable_response(self.clients.metadata)

        async def keys(request: Request) -> PageReply:  # noqa: ARG001
            return cacheable_response(self.keys.public())

        return {
            ("GET", "/oauth/client.json"): document,
            ("GET", "/oauth/client-keys"): keys,
            ("GET", PREFIX): pages.begin,
            ("POST", "/oauth/connect"): pages.answered,
            ("GET", CALLBACK): pages.returned,
            ("GET", f"{CALLBACK}/"): pages.returned,
        }


def build_upstream_oauth(  # noqa: PLR0913, PLR0917 - composes every part
    issuer: str,
    document: str,
    connections: Store,
    brief: Store,
    fetcher: HttpClient,
    keys: SigningKeys,
    issued: IssuedTokens,
    secrets: Secrets,
    providers: Providers,
    config: Callable[[], Configuration],
    named: Callable[[Server], bool],
    publish: Callable[[Event], None],
) -> UpstreamOAuth:
    """Create all components for upstream tokens."""
    discovery = Discovery(fetcher, named)
    registrations = DynamicRegistration(connections, fetcher, discovery.is_named)
    clients = ClientIdentities(issuer, document, registrations, secrets, discovery.is_named)
    tokens, renewal_lock = TokenClient(fetcher, keys), RenewalLock(brief)
    assertions = IdentityAssertions(connections, providers, tokens, renewal_lock, config)
    providers.on_sign_in = assertions.keep
    repository = ConnectionRepository(
        connections, clients, tokens, renewal_lock, assertions, publish
    )
    token_provider = TokenProvider(issuer, repository, discovery, clients, brief, config, issued)
    counter = ConnectionsAdmin(repository, token_provider, config)
    return UpstreamOAuth(token_provider, counter, clients, repository, keys, config)
