"""Events about upstream servers. They belong to no call and to no customer."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import Event


class ServerEvent(Event):
    """Fields of every event about an upstream server. `reason` is the cause, if it is known."""

    server: str
    reason: str = ""


class ServerConnected(ServerEvent):
    """An upstream server was connected and listed. Executor publishes this event.

    `tools` is the number of its tools, and `version` is the version of the server.
    """

    NAME: ClassVar[str] = "server.connected"

    tools: int = 0
    version: str = ""


class ServerLost(ServerEvent):
    """An upstream server became unreachable.

    The event is published once per loss, and again for each new reason.
    """

    NAME: ClassVar[str] = "server.lost"


class ServerFaulted(ServerEvent):
    """The lists of a server have errors. Executor publishes this event at each change.

    `dropped` contains the entries that are hidden, `repaired` contains the entries that are shown
    in a corrected form, and `failed` contains the lists that could not be read. Each maps a name to
    a reason. All are empty when the lists have no errors any more.
    """

    NAME: ClassVar[str] = "server.faulted"

    dropped: dict[str, str] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)
    repaired: dict[str, str] = Field(default_factory=dict)


class ServerCommandEvent(ServerEvent):
    """Fields of every event about an operator's command. `by` is the operator."""

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    by: str = ""


class ServerDrained(ServerCommandEvent):
    """An operator drained the server. It receives no new calls."""

    NAME: ClassVar[str] = "server.drained"


class ServerUndrained(ServerCommandEvent):
    """An operator resumed the server. It receives calls again."""

    NAME: ClassVar[str] = "server.undrained"


class ServerReset(ServerCommandEvent):
    """An operator reset the server. It is reconnected, and its circuit breaker is closed."""

    NAME: ClassVar[str] = "server.reset"


class BreakerOpened(ServerEvent):
    """The circuit breaker opened. Calls to the server fail until a probe succeeds.

    If `replica` is set, only the breaker of that replica opened. The other replicas still receive
    calls.
    """

    NAME: ClassVar[str] = "breaker.opened"

    replica: str = ""


class BreakerClosed(ServerEvent):
    """The circuit breaker closed after a successful probe. The server receives calls again."""

    NAME: ClassVar[str] = "breaker.closed"

    replica: str = ""


class ConnectionCreated(Event):
    """A user connected an account at a server. Oauth publishes this event.

    If `user` is empty, all users share the connection. `issuer` is the authorization server.
    """

    NAME: ClassVar[str] = "connection.created"
    PERSON: ClassVar[str] = "user"

    server: str
    user: str = ""
    issuer: str = ""


class ConnectionEnded(Event):
    """Toolbus no longer has a user's token for a server. Oauth publishes this event.

    `reason` is the cause. `by` is the operator, if an operator ended the connection.
    """

    NAME: ClassVar[str] = "connection.ended"
    PERSON: ClassVar[str] = "user"

    server: str
    user: str = ""
    issuer: str = ""
    reason: str = ""
    by: str = ""
