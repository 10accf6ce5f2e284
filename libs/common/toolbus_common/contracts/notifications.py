"""Passing words, on core NATS and kept nowhere: who is not there to hear them asks again anyway."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message


class ServerNotification(Message):
    """A server's notification that belongs to no call. Said by executor, heard by every ingress.

    `method` is MCP's, as `notifications/resources/updated`; `params` is raw JSON. Changes of lists
    are not said here: the catalogue bucket tells them. With `principal_id` it is for clients of
    that principal only, with `session` for that client session only. `unasked` says that a resource
    changed which nobody had it watch: that is for every session that may read it. With `asked` it
    is a request to that client session, and `ClientMessage` answers it under that id.
    """

    SUBJECT: ClassVar[str] = "tb.notification"
    BODY: ClassVar[str | None] = "params"

    server: str
    method: str
    principal_id: str = ""
    session: str = ""
    unasked: bool = False
    asked: str = ""
    params: bytes = Field(default=b"{}", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Where this is said."""
        return f"{self.SUBJECT}.{self.server}"


class ClientMessage(Message):
    """What a client session says outside calls, for executors with connections that belong to it.

    `what` is `taken` (the client was sent the request that `about` names), `answered` (`body` is
    the raw `"result":…` or `"error":…` of its answer), `roots` (its roots changed), or `ended`.
    """

    SUBJECT: ClassVar[str] = "tb.client"
    BODY: ClassVar[str | None] = "body"

    session: str
    what: str
    about: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Return where this is published."""
        return f"{self.SUBJECT}.{self.session}"


class SessionMessage(Message):
    """Something one ingress replica heard about a session that another may hold a stream of.

    `what` is `response` (the client's answer to a question of ours, `body` the JSON-RPC message),
    `message` (an answer of ours for the stream of HTTP+SSE), `cancelled` (`about` is the raw id of
    the request), `subscribed` and `unsubscribed` (a URI), `task` (`about` is a server's task and
    `body` its handle), `level` (of logging), `declared` (the client's capabilities as JSON), or
    `ended`.
    """

    SUBJECT: ClassVar[str] = "tb.session"
    BODY: ClassVar[str | None] = "body"

    session: str
    what: str
    about: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Where this is said."""
        return f"{self.SUBJECT}.{self.session}"


class StreamReadRequest(Message):
    """A client came back to one replica for a stream that another holds.

    Said again now and then while the client is there, and with `left` once it is gone. `reader`
    tells its readings apart; `after` is the number of the last event it has.
    """

    SUBJECT: ClassVar[str] = "tb.stream"

    replica: str
    session: str
    stream: str
    reader: str
    after: int
    left: bool = False

    @property
    def subject(self) -> str:
        """Where this is said."""
        return f"{self.SUBJECT}.{self.replica}"


class StreamReadReply(Message):
    """One event of a stream, for the replica that sought it: answered on the subject it named.

    `what` is `there` (the stream is held, and read from now on), `event` (`body` is the JSON-RPC
    message, empty for an event that only has a number), `ended`, or `missing`.
    """

    BODY: ClassVar[str | None] = "body"

    reader: str
    what: str
    number: int = 0
    body: bytes = Field(default=b"", exclude=True, repr=False)
