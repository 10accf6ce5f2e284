"""Events about upstream servers, without a call or customer."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import Event


class ServerEvent(Event):
    """Fields of every event about an upstream server; `reason` says why, if there is a reason."""

    server: str
    reason: str = ""


class ServerConnected(ServerEvent):
    """An upstream server was connected and listed. Published by executor.

    `tools` is the number of its tools, `version` its version.
    """

    NAME: ClassVar[str] = "server.connected"

    tools: int = 0
    version: str = ""


class ServerLost(ServerEvent):
    """An upstream server became unreachable. Published once per loss, and for each new reason."""

    NAME: ClassVar[str] = "server.lost"


class ServerFaulted(ServerEvent):
    """A server's lists have errors. Published by executor at each change.

    `dropped` holds the entries that are not shown, `repaired` those shown in a corrected form, and
    `failed` the lists that could not be read, each by name with the reason. All are empty when the
    lists have no errors any more.
    """

    NAME: ClassVar[str] = "server.faulted"

    dropped: dict[str, str] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)
    repaired: dict[str, str] = Field(default_factory=dict)


class ServerCommandEvent(ServerEvent):
    """Fields of every event about an operator's command; `by` is the operator."""

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    by: str = ""


class ServerDrained(ServerCommandEvent):
    """An operator drained the server: it receives no new calls."""

    NAME: ClassVar[str] = "server.drained"


class ServerUndrained(ServerCommandEvent):
    """An operator resumed the server: it receives calls again."""

    NAME: ClassVar[str] = "server.undrained"


class ServerReset(ServerCommandEvent):
    """An operator reset the server: it is reconnected, and its circuit breaker closed."""

    NAME: ClassVar[str] = "server.reset"


class BreakerOpened(ServerEvent):
    """The circuit breaker opened: calls to the server fail until a probe succeeds.

    With `replica`, it is the breaker of that replica only.
    """

    NAME: ClassVar[str] = "breaker.opened"

    replica: str = ""  # the other replicas still receive calls


class BreakerClosed(ServerEvent):
    """The circuit breaker closed after a successful probe; calls are sent again."""

    NAME: ClassVar[str] = "breaker.closed"

    replica: str = ""


class ConnectionCreated(Event):
    """A user connected an account at a server; without `user` it is shared by all users.

    Published by oauth. `issuer` is the server's authorization server.
    """

    NAME: ClassVar[str] = "connection.created"
    PERSON: ClassVar[str] = "user"

    server: str
    user: str = ""
    issuer: str = ""


class ConnectionEnded(Event):
    """Toolbus no longer has a user's token for a server; `reason` says why. Published by oauth.

    `by` is the operator if one ended it.
    """

    NAME: ClassVar[str] = "connection.ended"
    PERSON: ClassVar[str] = "user"

    server: str
    user: str = ""
    issuer: str = ""
    reason: str = ""
    by: str = ""
