"""The authorization request, read: whom the answer may go to, and what is wished."""

import re
from dataclasses import dataclass

from toolbus_oauth.clients.registry import AUTHORIZATION_CODE, Clients
from toolbus_oauth.server.resources import Resources
from toolbus_oauth.storage.records import Client, Wish
from toolbus_oauth.web import redirect_uris
from toolbus_oauth.web.errors import OAuthError, PageError
from toolbus_oauth.web.request import Fields

LONGEST_STATE = 1024
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256


class SentBackError(Exception):
    """A refusal the client is told: the browser is sent to its own address."""

    def __init__(self, redirect: str, state: str, error: OAuthError) -> None:
        super().__init__(error.sentence)
        self.redirect = redirect
        self.state = state
        self.error = error


@dataclass(frozen=True, slots=True)
class Asking:
    """Reads authorization requests."""

    clients: Clients
    resources: Resources

    async def wish(self, query: Fields) -> Wish:
        """What a client asks for.

        Raises:
            PageError: it is not known whether the browser may be sent anywhere.
            SentBackError: the client did something else wrong.

        """
        try:
            client = await self.clients.find(query.get("client_id", ""))
        except OAuthError as error:
            unknown = "Toolbus cannot tell which program sent you here."
            raise PageError(f"{unknown} {error.sentence}") from error
        redirect = _redirect(client, query.get("redirect_uri"))
        state = query.get("state", "")
        try:
            return self._wish(client, redirect, state, query)
        except OAuthError as error:
            raise SentBackError(redirect, state[:LONGEST_STATE], error) from error

    def _wish(self, client: Client, redirect: str, state: str, query: Fields) -> Wish:
        if len(state) > LONGEST_STATE:
            raise OAuthError("invalid_request", "The state is too long.")
        if "request" in query or "request_uri" in query:
            raise OAuthError("request_not_supported", "Send the parameters themselves.")
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type must be code.")
        if AUTHORIZATION_CODE not in client.grants:
            raise OAuthError("unauthorized_client", "This client may not ask people.")
        challenge = query.get("code_challenge", "")
        if query.get("code_challenge_method") != "S256" or not _DIGEST.fullmatch(challenge):
            raise OAuthError("invalid_request", "Send a code_challenge with the method S256.")
        jkt = query.get("dpop_jkt", "")
        if jkt and not _DIGEST.fullmatch(jkt):
            raise OAuthError("invalid_request", "dpop_jkt must be a key's thumbprint (RFC 7638).")
        if query.get("prompt") == "none":
            raise OAuthError("interaction_required", "A person is asked every time.")
        resource = self.resources.meant(query.get("resource", ""))
        return Wish(
            client_id=client.id,
            client=client.name,
            redirect=redirect,
            state=state,
            challenge=challenge,
            scope=self.resources.given(client, resource, query.get("scope", "")),
            resource=resource,
            registered=client.registered,
            jkt=jkt,
        )


def _redirect(client: Client, told: str | None) -> str:
    if told is None and len(client.redirects) == 1:
        return client.redirects[0]
    if not told or not redirect_uris.matches(told, client.redirects):
        raise PageError(
            "The program wants your answer sent to an address it never named. Do not go on; tell "
            "whoever made it."
        )
    return told
