"""Parser and validator of authorization requests."""

import re
from dataclasses import dataclass

from toolbus_common.access.oauth_scopes import CONSOLE_CLIENT
from toolbus_oauth.clients.registry import AUTHORIZATION_CODE, ClientRegistry
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.storage.records import AuthorizationRequest, Client
from toolbus_oauth.web import redirect_uris
from toolbus_oauth.web.errors import OAuthError, PageError
from toolbus_oauth.web.request import Fields

LONGEST_STATE = 1024
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256


class RedirectedError(Exception):
    """An error that is sent to the client, by redirecting the browser to the redirect URI."""

    def __init__(self, redirect: str, state: str, error: OAuthError) -> None:
        super().__init__(error.message)
        self.redirect = redirect
        self.state = state
        self.error = error


@dataclass(frozen=True, slots=True)
class AuthorizationRequestParser:
    """Parser of authorization requests."""

    clients: ClientRegistry
    resources: Resources

    async def auth_request(self, query: Fields) -> AuthorizationRequest:
        """Parse an authorization request.

        Raises:
            PageError: the client or redirect URI is invalid, so the browser must not be redirected.
            RedirectedError: another parameter is invalid; the redirect reports it to the client.

        """
        try:
            client = await self.clients.find(query.get("client_id", ""))
        except OAuthError as error:
            unknown = "Toolbus cannot identify the program that sent you here."
            raise PageError(f"{unknown} {error.message}") from error
        redirect = _redirect(client, query.get("redirect_uri"))
        state = query.get("state", "")
        try:
            return self._validated(client, redirect, state, query)
        except OAuthError as error:
            raise RedirectedError(redirect, state[:LONGEST_STATE], error) from error

    def _validated(
        self, client: Client, redirect: str, state: str, query: Fields
    ) -> AuthorizationRequest:
        if len(state) > LONGEST_STATE:
            raise OAuthError(
                "invalid_request",
                f"The state is too long; use at most {LONGEST_STATE} characters.",
            )
        if "request" in query or "request_uri" in query:
            raise OAuthError(
                "request_not_supported",
                "request and request_uri are not supported; send each parameter in the query.",
            )
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type must be code.")
        if AUTHORIZATION_CODE not in client.grants:
            raise OAuthError(
                "unauthorized_client",
                "This client is not registered for authorization_code; register one with that "
                "grant type.",
            )
        challenge = query.get("code_challenge", "")
        if query.get("code_challenge_method") != "S256" or not _DIGEST.fullmatch(challenge):
            raise OAuthError(
                "invalid_request", "PKCE is required; send a code_challenge with the method S256."
            )
        jkt = query.get("dpop_jkt", "")
        if jkt and not _DIGEST.fullmatch(jkt):
            raise OAuthError("invalid_request", "dpop_jkt must be a key's thumbprint (RFC 7638).")
        if query.get("prompt") == "none":
            raise OAuthError(
                "interaction_required", "Consent is required for every request; omit prompt=none."
            )
        resource = self.resources.resolve(query.get("resource", ""))
        return AuthorizationRequest(
            client_id=client.id,
            client=client.name,
            redirect=redirect,
            state=state,
            challenge=challenge,
            scope=self.resources.grant_scopes(client, resource, query.get("scope", "")),
            resource=resource,
            registered=client.registered,
            jkt=jkt,
        )


def _redirect(client: Client, requested: str | None) -> str:
    if requested is None and len(client.redirects) == 1:
        return client.redirects[0]
    if client.id == CONSOLE_CLIENT:  # the gateway's own address: no other port receives its codes
        registered = requested in client.redirects
    else:
        registered = redirect_uris.matches(requested or "", client.redirects)
    if not requested or not registered:
        raise PageError(
            "The program asks for a redirect to an address that it did not register. Do not "
            "continue; report this to the program's developer."
        )
    return requested
