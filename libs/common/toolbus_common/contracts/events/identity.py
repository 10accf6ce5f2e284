"""Events about sign-in, and about clients that may act for users."""

from typing import ClassVar

from toolbus_common.contracts.events.base import Event


class GrantCreated(Event):
    """A user authorized a client, or a machine received a token of its own. Published by oauth.

    `grant` is its id. `access` is the access rule that applies to the user, `client` the client's
    own name, `resource` the URL the tokens are valid for, `scopes` their OAuth scopes. `actors` are
    the machines that act with an exchanged token (RFC 8693), the nearest first.
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
    """A client may no longer act for a user; `reason` says why, `by` is the operator if any.

    Published by oauth.
    """

    NAME: ClassVar[str] = "grant.ended"
    PERSON: ClassVar[str] = "user"

    grant: str
    user: str = ""
    client_id: str = ""
    reason: str = ""
    by: str = ""


class SignInDenied(Event):
    """A sign-in as `user` failed, or the user has no access; `reason` says which.

    Published by oauth.
    """

    NAME: ClassVar[str] = "signin.denied"
    PERSON: ClassVar[str] = "user"

    user: str
    reason: str


class AccessRejected(Event):
    """Requests from one client address were rejected for one reason, counted over a minute.

    `entrance` is where they arrived (`mcp`, `admin`, `approvals`, `oauth`, `reader`, `http`),
    `code` the error code, `count` their number. `address` is the client's (IPv6: its /64), and
    empty if there were too many addresses to count separately. `since` is the time of the first
    request and `at` of the last, both in seconds since the epoch.
    """

    NAME: ClassVar[str] = "access.rejected"

    entrance: str
    code: str
    address: str = ""
    count: int
    since: float
    reason: str = ""
