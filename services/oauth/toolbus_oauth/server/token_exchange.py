"""Token exchange (RFC 8693): a client acts for a user, and the token names the client."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Any

from toolbus_common.access.oauth_scopes import administers
from toolbus_common.access.token_cache import BELOW
from toolbus_common.config import MACHINES
from toolbus_oauth.accounts.access_rules import machine_name
from toolbus_oauth.clients.registry import check_confidential
from toolbus_oauth.server.grants import Grants, TokenError
from toolbus_oauth.server.scopes import narrow
from toolbus_oauth.storage.records import AuthorizationRequest, Client, Grant
from toolbus_oauth.web.errors import OAuthError, invalid, invalid_grant
from toolbus_oauth.web.request import Fields

TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the type of one
MAX_ACTORS = 4


@dataclass(frozen=True, slots=True)
class TokenExchange:
    """Issuer of exchanged tokens; scope and lifetime never exceed those of the original token.

    The operator configures for which resources a client may exchange tokens. `resource_of` resolves
    a requested resource, or raises `OAuthError`.
    """

    grants: Grants
    resource_of: Callable[[str], str]

    async def redeem(self, form: Fields, client: Client, jkt: str) -> dict[str, Any]:
        """Return the token response, bound to the client's key `jkt` if one was proved.

        Raises `OAuthError`.
        """
        if form.get("requested_token_type", TOKEN) != TOKEN:
            raise invalid(f"requested_token_type must be {TOKEN}.")
        claims, subject = await self._verified_token(form, "subject_token")
        actor, ends = await self._actor(form, client)
        auth_request = self._validated(form, client, subject)
        actors = _actor_chain(actor, subject.actors)
        parameters = " ".join((client.id, auth_request.resource, auth_request.scope, jkt, *actors))
        grant = await self.grants.give(
            auth_request,
            subject.person,
            f"{subject.id}{BELOW}{sha256(parameters.encode()).hexdigest()[:12]}",
            jkt=jkt,
            above=subject,
            actors=actors,
        )
        until = min(float(claims["exp"]), ends)
        response = self.grants.response(grant, refreshable=False, until=until)
        return response | {"issued_token_type": TOKEN}

    async def _verified_token(self, form: Fields, name: str) -> tuple[dict[str, Any], Grant]:
        """Return the claims and grant of a token in the request. Raises `OAuthError`."""
        if form.get(f"{name}_type") != TOKEN:
            raise invalid(f"{name}_type must be {TOKEN}.")
        try:
            claims, grant = await self.grants.verify_token(form.get(name, ""))
        except TokenError as error:
            raise invalid_grant(f"The {name} is invalid: {error}") from error
        if not grant.scope:
            raise invalid_grant(f"No scope of the {name} exists any more; sign in again.")
        if "cnf" in claims or self._requires_key(grant):
            raise invalid_grant(
                f"The {name} is, or must be, bound to its client's key; it cannot be exchanged."
            )
        return claims, grant

    def _requires_key(self, grant: Grant) -> bool:
        """Return whether the person's access rule requires bound tokens now."""
        access = self.grants.rule(grant.person, administers=administers(grant.scope))
        return access is None or self.grants.config().access[access].dpop

    async def _actor(self, form: Fields, client: Client) -> tuple[str, float]:
        """Return the client's user name, and the Unix time until which the client may act."""
        check_confidential(client)
        own = machine_name(client.name)
        if "actor_token" not in form:
            if "actor_token_type" in form:
                raise invalid("actor_token_type requires an actor_token; send both or neither.")
            return own, time() + self.grants.lifetimes.access
        claims, actor = await self._verified_token(form, "actor_token")
        its = actor.client_id == client.id and actor.person.issuer == MACHINES
        if not its or actor.actors:
            raise invalid_grant(
                "The actor_token must be a client_credentials token of this client."
            )
        return own, float(claims["exp"])

    def _validated(self, form: Fields, client: Client, subject: Grant) -> AuthorizationRequest:
        """Return the request if the subject token and the client allow it. Raises `OAuthError`."""
        targets = {form[name] for name in ("resource", "audience") if form.get(name)}
        if len(targets) > 1:
            raise OAuthError(
                "invalid_target", "resource and audience differ; send only one of them."
            )
        resource = self.resource_of(targets.pop() if targets else subject.resource)
        if resource not in client.exchange:
            raise OAuthError(
                "invalid_target",
                "This client may not exchange tokens for that resource; an operator can create one "
                "that may with 'toolbus clients add --exchange'.",
            )
        if not _within(resource, subject.resource):
            raise OAuthError(
                "invalid_target",
                "The subject_token is for another resource; name that one, or a server within it.",
            )
        if administers(subject.scope):
            raise OAuthError(
                "invalid_target",
                "An administration token cannot be exchanged; use a token for tools.",
            )
        scope = narrow(subject.scope, form.get("scope", ""))
        return AuthorizationRequest(
            client.id, client.name, "", "", "", scope, resource, registered=False
        )


def _within(resource: str, whole: str) -> bool:
    """Return whether a resource is `whole` or one server within `whole`."""
    return resource == whole or resource.startswith(f"{whole}/")


def _actor_chain(actor: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """Return the acting clients, the nearest first. Raises `OAuthError` if there are too many."""
    actors = before if before[:1] == (actor,) else (actor, *before)
    if len(actors) > MAX_ACTORS:
        raise invalid_grant(f"The chain of acting clients would exceed {MAX_ACTORS}.")
    return actors
