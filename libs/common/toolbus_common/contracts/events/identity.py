"""Events about sign-in, and about clients that act for users."""

from typing import ClassVar

from toolbus_common.contracts.events.base import Event


class GrantCreated(Event):
    """A user authorized a client, or a machine received a token. Oauth publishes this event.

    `grant` is the id of the grant. `access` is the access rule that applies to the user. `client`
    is the name that the client gave. `resource` is the URL that the tokens are valid for, and
    `scopes` are their OAuth scopes. `actors` are the machines that act with an exchanged token (RFC
    8693), the nearest first.
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
    """A client is no longer permitted to act for a user. Oauth publishes this event.

    `reason` is the cause. `by` is the operator, if an operator ended the grant.
    """

    NAME: ClassVar[str] = "grant.ended"
    PERSON: ClassVar[str] = "user"

    grant: str
    user: str = ""
    client_id: str = ""
    reason: str = ""
    by: str = ""


class SignInDenied(Event):
    """A sign-in as `user` failed, or the user has no access. `reason` is the cause.

    Oauth publishes this event.
    """

    NAME: ClassVar[str] = "signin.denied"
    PERSON: ClassVar[str] = "user"

    user: str
    reason: str


class AccessRejected(Event):
    """Requests from one client address were rejected for one reason within a minute.

    `entrance` is the interface that received them (`mcp`, `models`, `admin`, `approvals`, `oauth`,
    `reader`, `http`). `code` is the error code, and `count` is the number of requests. `address` is
    the address of the client (for IPv6 the /64 network). It is empty if there were too many
    addresses to count separately. `since` is the time of the first request and `at` is the time of
    the last one, in seconds since the epoch.
    """

    NAME: ClassVar[str] = "access.rejected"

    entrance: str
    code: str
    address: str = ""
    count: int
    since: float
    reason: str = ""
