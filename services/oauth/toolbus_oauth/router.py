"""Router of HTTP requests; it renders errors as JSON or as a page."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.contracts import PageReply, PageRequest
from toolbus_common.web import html
from toolbus_oauth.account_page import page as accountpage
from toolbus_oauth.accounts.oidc_providers import CALLBACK
from toolbus_oauth.clients.registry import ClientRegistry
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.server.authorize_flow import AuthorizeFlow
from toolbus_oauth.server.token_endpoint import TokenEndpoint
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web import pages
from toolbus_oauth.web.errors import OAuthError, PageError
from toolbus_oauth.web.request import (
    Handler,
    Request,
    cacheable_response,
    error_response,
    json_response,
)


@dataclass(slots=True)
class Router:
    """Routes of the authorization server."""

    authorize_flow: AuthorizeFlow
    token_endpoint: TokenEndpoint
    clients: ClientRegistry
    keys: SigningKeys
    metadata: Callable[[], dict[str, Any]]
    registration: bool
    # Further routes. A path that ends in / matches all paths below it.
    more: Mapping[tuple[str, str], Handler] = field(default_factory=dict)
    _routes: dict[tuple[str, str], Handler] = field(init=False)  # of this class, and `more`

    def __post_init__(self) -> None:
        """Build the routing table."""
        flow, tokens = self.authorize_flow, self.token_endpoint
        self._routes = {
            ("GET", "/.well-known/oauth-authorization-server"): self._metadata,
            ("GET", "/.well-known/openid-configuration"): self._metadata,
            ("GET", "/oauth/jwks"): self._keys,
            ("GET", "/oauth/authorize"): flow.authorize,
            ("GET", "/oauth/device"): flow.device,
            ("GET", CALLBACK): flow.returned,
            ("GET", accountpage.PATH): flow.account,
            ("POST", accountpage.PATH): flow.account_changed,
            ("POST", "/oauth/sign-in"): flow.sign_in,
            ("POST", "/oauth/consent"): flow.consent,
            ("POST", "/oauth/token"): tokens.token,
            ("POST", "/oauth/device/code"): tokens.device_code,
            ("POST", "/oauth/revoke"): tokens.revoke,
            ("POST", "/oauth/introspect"): tokens.introspect,
        }
        if self.registration:
            self._routes["POST", "/oauth/register"] = self._registered

    async def answer(self, request: PageRequest) -> PageReply:
        """Return the response to one request."""
        above = f"{request.path.rpartition('/')[0]}/"
        handler = self._routes.get((request.method, request.path))
        handler = handler or self.more.get((request.method, request.path))
        handler = handler or self._routes.get((request.method, above))
        handler = handler or self.more.get((request.method, above))
        if request.method == "GET" or _is_browser(request):
            await asyncio.to_thread(html.load)
        if handler is None:
            return self._not_found(request, above)
        try:
            return await handler(Request(request))
        except OAuthError as error:
            return error_response(error)
        except PageError as error:
            page = pages.message_page("This request cannot continue", error.message, error.status)
            return page.model_copy(update={"rejected": _rejection_reason(error, request.path)})

    def _not_found(self, request: PageRequest, above: str) -> PageReply:
        """Return HTTP 404 or 405, as a page if the client is a browser."""
        paths = (request.path, above)
        methods = sorted(method for method, path in self._routes if path in paths)
        status, allow = (405, (("allow", ", ".join(methods)),)) if methods else (404, ())
        if not _is_browser(request):
            return PageReply(status=status, headers=allow)
        message = "This page cannot be opened directly. Restart the sign-in from your application."
        page = pages.message_page("Page not found", message, status)
        return page.model_copy(update={"headers": (*page.headers, *allow)})

    async def _metadata(self, request: Request) -> PageReply:  # noqa: ARG002
        return cacheable_response(self.metadata())

    async def _keys(self, request: Request) -> PageReply:  # noqa: ARG002
        return cacheable_response(self.keys.public())

    async def _registered(self, request: Request) -> PageReply:
        client, secret = await self.clients.register(request.json)
        return json_response(201, registration_response(client, secret))


def _is_browser(request: PageRequest) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _rejection_reason(error: PageError, path: str) -> str:
    """Return the reason code that ingress counts for a failed sign-in, or an empty string."""
    if path.startswith(CALLBACK):
        return "provider"
    return "forbidden" if error.status == 403 else ""  # noqa: PLR2004


def registration_response(client: Client, secret: str) -> dict[str, Any]:
    """Return the registration response (RFC 7591 section 3.2.1); an empty secret is omitted."""
    response: dict[str, Any] = {
        "client_id": client.id,
        "client_id_issued_at": int(client.made),
        "client_name": client.name,
        "redirect_uris": list(client.redirects),
        "grant_types": list(client.grants),
        "response_types": ["code"],
        "token_endpoint_auth_method": client.method,
    }
    if client.bound:
        response["dpop_bound_access_tokens"] = True
    if secret:
        response |= {"client_secret": secret, "client_secret_expires_at": 0}
    return response | ({"jwks": client.keys} if client.keys else {})
