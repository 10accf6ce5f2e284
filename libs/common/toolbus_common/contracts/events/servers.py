"""Events about upstream servers, of no call and no customer."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import Event


class ServerEvent(Event):
    """What every event about an upstream server has."""

    server: str
    reason: str = ""


class ServerConnected(ServerEvent):
    """An upstream answered and its tools are listed."""

    NAME: ClassVar[str] = "server.connected"

    tools: int = 0
    version: str = ""


class ServerLost(ServerEvent):
    """An upstream cannot be reached: said once for each loss, and again for another reason."""

    NAME: ClassVar[str] = "server.lost"


class ServerFaulted(ServerEvent):
    """Some of what an upstream lists is not shown, repaired, or a list of its fails.

    Each has the reason by name; all are empty when the upstream lists without fault again.
    """

    NAME: ClassVar[str] = "server.faulted"

    dropped: dict[str, str] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)
    repaired: dict[str, str] = Field(default_factory=dict)


class ServerCommandEvent(ServerEvent):
    """What every event about an operator's word on a server has: `by` is who gave it."""

    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    by: str = ""


class ServerDrained(ServerCommandEvent):
    """An operator lets it have no new calls."""

    NAME: ClassVar[str] = "server.drained"


class ServerUndrained(ServerCommandEvent):
    """An operator lets it have calls again."""

    NAME: ClassVar[str] = "server.undrained"


class ServerReset(ServerCommandEvent):
    """An operator has it met anew: another connection, a closed breaker."""

    NAME: ClassVar[str] = "server.reset"


class BreakerOpened(ServerEvent):
    """Calls to this upstream are refused until a probe succeeds; or one replica gets none."""

    NAME: ClassVar[str] = "breaker.opened"

    replica: str = ""  # the others still take calls


class BreakerClosed(ServerEvent):
    """A probe succeeded; calls flow again."""

    NAME: ClassVar[str] = "breaker.closed"

    replica: str = ""


class ConnectionCreated(Event):
    """Somebody let Toolbus act for them at a server; without `user` for everybody."""

    NAME: ClassVar[str] = "connection.created"
    PERSON: ClassVar[str] = "user"

    server: str
    user: str = ""
    issuer: str = ""


class ConnectionEnded(Event):
    """Toolbus has no token of somebody's for a server any more; `reason` says why."""

    NAME: ClassVar[str] = "connection.ended"
    PERSON: ClassVar[str] = "user"

    server: str
    user: str = ""
    issuer: str = ""
    reason: str = ""
    by: str = ""
