"""Token exchange (RFC 8693): a client acts on for whose token it was shown, and it can be seen."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Any

from toolbus_common.access.oauth_scopes import administers
from toolbus_common.access.token_cache import BELOW
from toolbus_common.config import MACHINES
from toolbus_oauth.accounts.access_rules import called_itself
from toolbus_oauth.clients.registry import check_proves
from toolbus_oauth.server.grants import Grants, TokenError
from toolbus_oauth.server.scopes import narrowed
from toolbus_oauth.storage.records import Client, Grant, Wish
from toolbus_oauth.web.errors import OAuthError, invalid, invalid_grant
from toolbus_oauth.web.request import Fields

TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the type of one
MOST_ACTORS = 4


@dataclass(frozen=True, slots=True)
class Exchanging:
    """Gives a client a token for somebody else: narrower, no longer, and with its own name in it.

    Only operators say which client may, and at which resources. `resource_of` gives the resource
    meant, or raises.
    """

    grants: Grants
    resource_of: Callable[[str], str]

    async def redeem(self, form: Fields, client: Client, jkt: str) -> dict[str, Any]:
        """The token endpoint's answer, bound to the client's key if it proved one (`jkt`).

        Raises `OAuthError`.
        """
        if form.get("requested_token_type", TOKEN) != TOKEN:
            raise invalid(f"requested_token_type may be {TOKEN} only.")
        claims, subject = await self._shown(form, "subject_token")
        actor, ends = await self._actor(form, client)
        wish = self._wish(form, client, subject)
        actors = _acting(actor, subject.actors)
        about = " ".join((client.id, wish.resource, wish.scope, jkt, *actors))
        grant = await self.grants.give(
            wish,
            subject.person,
            f"{subject.id}{BELOW}{sha256(about.encode()).hexdigest()[:12]}",
            jkt=jkt,
            above=subject,
            actors=actors,
        )
        until = min(float(claims["exp"]), ends)
        told = self.grants.response(grant, refreshable=False, until=until)
        return told | {"issued_token_type": TOKEN}

    async def _shown(self, form: Fields, name: str) -> tuple[dict[str, Any], Grant]:
        """Claims and grant of a token of ours that is good now."""
        if form.get(f"{name}_type") != TOKEN:
            raise invalid(f"{name}_type must be {TOKEN}.")
        try:
            claims, grant = await self.grants.of_token(form.get(name, ""))
        except TokenError as error:
            raise invalid_grant(f"The {name} is not taken: {error}") from error
        if not grant.scope:
            raise invalid_grant(f"Nothing is left of what the {name} is for.")
        if "cnf" in claims or self._wants_key(grant):
            raise invalid_grant(f"The {name} is bound to a key, or has to be: its client's alone.")
        return claims, grant

    def _wants_key(self, grant: Grant) -> bool:
        """Whether by now its person's tokens have to be bound to a key."""
        access = self.grants.rule(grant.person, administers=administers(grant.scope))
        return access is None or self.grants.declared().access[access].dpop

    async def _actor(self, form: Fields, client: Client) -> tuple[str, float]:
        """What the client is called, and until when it may be: by itself, or by its own token."""
        check_proves(client)
        own = called_itself(client.name)
        if "actor_token" not in form:
            if "actor_token_type" in form:
                raise invalid("actor_token_type is for an actor_token; send both or neither.")
            return own, time() + self.grants.lifetimes.access
        claims, actor = await self._shown(form, "actor_token")
        its = actor.client_id == client.id and actor.person.issuer == MACHINES
        if not its or actor.actors:
            raise invalid_grant("The actor_token must be one that this client got for itself.")
        return own, float(claims["exp"])

    def _wish(self, form: Fields, client: Client, subject: Grant) -> Wish:
        """What is asked for, if it is no more than there was and than the client may ask."""
        told = {form[name] for name in ("resource", "audience") if form.get(name)}
        if len(told) > 1:
            raise OAuthError("invalid_target", "resource and audience must mean the same.")
        resource = self.resource_of(told.pop() if told else subject.resource)
        if resource not in client.exchange:
            raise OAuthError("invalid_target", "This client may exchange nothing for that.")
        if not _within(resource, subject.resource):
            raise OAuthError("invalid_target", "The subject_token is not good there itself.")
        if administers(subject.scope):
            raise OAuthError("invalid_target", "Nobody administers in somebody else's name.")
        scope = narrowed(subject.scope, form.get("scope", ""))
        return Wish(client.id, client.name, "", "", "", scope, resource, registered=False)


def _within(resource: str, whole: str) -> bool:
    """Whether it is that endpoint, or that of one server of it. Pure."""
    return resource == whole or resource.startswith(f"{whole}/")


def _acting(actor: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """Who acts, the nearest first. Raises `OAuthError` where it becomes too many. Pure."""
    actors = before if before[:1] == (actor,) else (actor, *before)
    if len(actors) > MOST_ACTORS:
        raise invalid_grant(f"More than {MOST_ACTORS} would act for somebody, one for another.")
    return actors
