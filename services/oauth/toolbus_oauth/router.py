"""Paths to what answers them; a refusal in the form its reader understands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.contracts import PageReply, PageRequest
from toolbus_oauth.account_page import page as accountpage
from toolbus_oauth.accounts.oidc_providers import CALLBACK
from toolbus_oauth.clients.registry import Clients
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.server.authorize_flow import Browsing
from toolbus_oauth.server.token_endpoint import Redeeming
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web import pages as html
from toolbus_oauth.web.errors import OAuthError, PageError
from toolbus_oauth.web.request import Handler, Request, kept, told_error, told_json


@dataclass(slots=True)
class Routes:
    """The whole authorization server."""

    browsing: Browsing
    redeeming: Redeeming
    clients: Clients
    keys: SigningKeys
    metadata: Callable[[], dict[str, Any]]
    registration: bool
    more: Mapping[tuple[str, str], Handler] = field(default_factory=dict)  # ending in /: all below
    _table: dict[tuple[str, str], Handler] = field(init=False)  # likewise

    def __post_init__(self) -> None:
        """Put every path to what answers it."""
        pages, tokens = self.browsing, self.redeeming
        self._table = {
            ("GET", "/.well-known/oauth-authorization-server"): self._described,
            ("GET", "/.well-known/openid-configuration"): self._described,
            ("GET", "/oauth/jwks"): self._keys,
            ("GET", "/oauth/authorize"): pages.authorize,
            ("GET", "/oauth/device"): pages.device,
            ("GET", CALLBACK): pages.returned,
            ("GET", accountpage.PATH): pages.account,
            ("POST", accountpage.PATH): pages.account_changed,
            ("POST", "/oauth/sign-in"): pages.sign_in,
            ("POST", "/oauth/consent"): pages.consent,
            ("POST", "/oauth/token"): tokens.token,
            ("POST", "/oauth/device/code"): tokens.device_code,
            ("POST", "/oauth/revoke"): tokens.revoke,
            ("POST", "/oauth/introspect"): tokens.introspect,
        }
        if self.registration:
            self._table["POST", "/oauth/register"] = self._registered

    async def answer(self, asked: PageRequest) -> PageReply:
        """The answer to one request."""
        above = f"{asked.path.rpartition('/')[0]}/"
        known = self._table.get((asked.method, asked.path))
        handler = known or self.more.get((asked.method, asked.path))
        handler = handler or self._table.get((asked.method, above))
        handler = handler or self.more.get((asked.method, above))
        if handler is None:
            return self._nothing(asked, above)
        try:
            return await handler(Request(asked))
        except OAuthError as error:
            return told_error(error)
        except PageError as error:
            page = html.ended("This cannot go on", error.sentence, error.status)
            return page.model_copy(update={"rejected": _why(error, asked.path)})

    def _nothing(self, asked: PageRequest, above: str) -> PageReply:
        """Nothing answers this; who looks at it in a browser is told so."""
        at = (asked.path, above)
        others = sorted(method for method, path in self._table if path in at)
        status, allow = (405, (("allow", ", ".join(others)),)) if others else (404, ())
        if "text/html" not in asked.headers.get("accept", ""):
            return PageReply(status=status, headers=allow)
        sentence = "This page cannot be opened by itself. Begin anew in the program."
        told = html.ended("Nothing to see here", sentence, status)
        return told.model_copy(update={"headers": (*told.headers, *allow)})

    async def _described(self, request: Request) -> PageReply:  # noqa: ARG002
        return kept(self.metadata())

    async def _keys(self, request: Request) -> PageReply:  # noqa: ARG002
        return kept(self.keys.public())

    async def _registered(self, request: Request) -> PageReply:
        client, secret = await self.clients.register(request.json)
        return told_json(201, registered(client, secret))


def _why(error: PageError, path: str) -> str:
    """Return why somebody could not sign in or go on, as ingress counts it; empty: for no fault."""
    if path.startswith(CALLBACK):
        return "provider"
    return "forbidden" if error.status == 403 else ""  # noqa: PLR2004


def registered(client: Client, secret: str) -> dict[str, Any]:
    """What a client that registered is told; its secret once."""
    told: dict[str, Any] = {
        "client_id": client.id,
        "client_id_issued_at": int(client.made),
        "client_name": client.name,
        "redirect_uris": list(client.redirects),
        "grant_types": list(client.grants),
        "response_types": ["code"],
        "token_endpoint_auth_method": client.method,
    }
    if client.bound:
        told["dpop_bound_access_tokens"] = True
    if secret:
        told |= {"client_secret": secret, "client_secret_expires_at": 0}
    return told | ({"jwks": client.keys} if client.keys else {})
