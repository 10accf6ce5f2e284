"""Facts about who signed in, and which client may act for them."""

from typing import ClassVar

from toolbus_common.contracts.fact import Fact


class GrantGiven(Fact):
    """Somebody let a client act for them, or a machine was given a token of its own.

    `access` is the rule that covers them, `client` what the client calls itself, `scopes` what its
    tokens are for. `actors` are who act with a token that was exchanged for another's, the nearest
    first.
    """

    NAME: ClassVar[str] = "grant.given"
    PERSON: ClassVar[str] = "user"

    grant: str
    access: str
    user: str
    client: str
    client_id: str
    resource: str = ""
    scopes: str = ""
    actors: tuple[str, ...] = ()


class GrantEnded(Fact):
    """A client may no longer act for somebody; `reason` says why."""

    NAME: ClassVar[str] = "grant.ended"
    PERSON: ClassVar[str] = "user"

    grant: str
    user: str = ""
    client_id: str = ""
    reason: str = ""
    by: str = ""


class SignInRefused(Fact):
    """Somebody could not sign in as `user`, or nothing is granted to who could."""

    NAME: ClassVar[str] = "signin.refused"
    PERSON: ClassVar[str] = "user"

    user: str
    reason: str
