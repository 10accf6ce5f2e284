"""Events about who signed in, and which client may act for them."""

from typing import ClassVar

from toolbus_common.contracts.events.base import Event


class GrantCreated(Event):
    """Somebody let a client act for them, or a machine was given a token of its own.

    `access` is the rule that covers them, `client` what the client calls itself, `scopes` what its
    tokens are for. `actors` are who act with a token that was exchanged for another's, the nearest
    first.
    """

    NAME: ClassVar[str] = "grant.created"
    PERSON: ClassVar[str] = "user"

    grant: str
    access: str
    user: str
    client: str
    client_id: str
    resource: str = ""
    scopes: str = ""
    actors: tuple[str, ...] = ()


class GrantEnded(Event):
    """A client may no longer act for somebody; `reason` says why."""

    NAME: ClassVar[str] = "grant.ended"
    PERSON: ClassVar[str] = "user"

    grant: str
    user: str = ""
    client_id: str = ""
    reason: str = ""
    by: str = ""


class SignInDenied(Event):
    """Somebody could not sign in as `user`, or nothing is granted to who could."""

    NAME: ClassVar[str] = "signin.denied"
    PERSON: ClassVar[str] = "user"

    user: str
    reason: str


class AccessRejected(Event):
    """Requests from one client address that were rejected for one reason, counted over a minute.

    `entrance` is where they came (`mcp`, `admin`, `approvals`, `oauth`, `reader`, `http`), `code`
    why, `address` the client's (IPv6: its /64), empty where too many addresses came to tell them
    apart. `since` is when the first came, in seconds since the epoch, and `at` when the last did.
    """

    NAME: ClassVar[str] = "access.rejected"

    entrance: str
    code: str
    address: str = ""
    count: int
    since: float
    reason: str = ""
