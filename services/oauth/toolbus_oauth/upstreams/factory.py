"""The parts of this package, put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import Event, PageReply
from toolbus_common.secrets import Secrets
from toolbus_oauth.accounts.oidc_providers import Providers
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.server.authorize_flow import Browsing
from toolbus_oauth.storage.http_client import Fetcher
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.admin import Counter
from toolbus_oauth.upstreams.client_identity import RETURN, Clienthood
from toolbus_oauth.upstreams.connection_repository import Connections
from toolbus_oauth.upstreams.connections.renewal_lock import Turns
from toolbus_oauth.upstreams.discovery import Discovery
from toolbus_oauth.upstreams.dynamic_registration import Enrolling
from toolbus_oauth.upstreams.id_jag import Vouching
from toolbus_oauth.upstreams.token_client import Tokens
from toolbus_oauth.upstreams.token_provider import Telling
from toolbus_oauth.upstreams.web.connect_flow import PREFIX, Connecting
from toolbus_oauth.web.request import Handler, Request, kept


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What the service answers with: `telling` to executor, `counter` to operators."""

    telling: Telling
    counter: Counter
    clients: Clienthood
    connections: Connections
    keys: SigningKeys
    declared: Callable[[], Configuration]

    def paths(self, browsing: Browsing) -> Mapping[tuple[str, str], Handler]:
        """What is answered over HTTP."""
        parts = (self.connections, self.telling, self.clients, self.declared)
        pages = Connecting(browsing, self.telling.brief, *parts)

        async def document(request: Request) -> PageReply:  # noqa: ARG001
            return kept(self.clients.metadata)

        async def keys(request: Request) -> PageReply:  # noqa: ARG001
            return kept(self.keys.public())

        return {
            ("GET", "/oauth/client.json"): document,
            ("GET", "/oauth/client-keys"): keys,
            ("GET", PREFIX): pages.begin,
            ("POST", "/oauth/connect"): pages.answered,
            ("GET", RETURN): pages.returned,
            ("GET", f"{RETURN}/"): pages.returned,
        }


def upstreams(  # noqa: PLR0913, PLR0917 - every part meets here
    issuer: str,
    document: str,
    connections: Store,
    brief: Store,
    fetcher: Fetcher,
    keys: SigningKeys,
    secrets: Secrets,
    providers: Providers,
    declared: Callable[[], Configuration],
    named: Callable[[Server], bool],
    say: Callable[[Event], None],
) -> Upstreams:
    """All of it."""
    discovery = Discovery(fetcher, named)
    enrolling = Enrolling(connections, fetcher, discovery.is_named)
    clients = Clienthood(issuer, document, enrolling, secrets, discovery.is_named)
    tokens, turns = Tokens(fetcher, keys), Turns(brief)
    vouching = Vouching(connections, providers, tokens, turns, secrets, declared)
    providers.on_arrived = vouching.keep
    kept_ones = Connections(connections, clients, tokens, turns, vouching, say)
    telling = Telling(issuer, kept_ones, discovery, clients, brief, declared)
    counter = Counter(kept_ones, telling, declared)
    return Upstreams(telling, counter, clients, kept_ones, keys, declared)
