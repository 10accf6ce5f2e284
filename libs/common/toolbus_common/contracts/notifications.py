"""Transient messages on core NATS, never stored: a receiver that misses one can query again."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message


class ServerNotification(Message):
    """A server's notification that belongs to no call. Sent by executor to every ingress replica.

    `method` is the MCP method, such as `notifications/resources/updated`; `params` is raw JSON.
    Changes of lists are not sent here: they are published in the catalog bucket. With
    `principal_id` the notification is for clients of that principal only, with `session` for that
    client session only. `unsolicited` marks the change of a resource without a subscription: it is
    for every session that may read the resource. With `request_id` it is a request to that client
    session, and a `ClientMessage` with this id is the reply.
    """

    SUBJECT: ClassVar[str] = "tb.notification"
    BODY: ClassVar[str | None] = "params"

    server: str
    method: str
    principal_id: str = ""
    session: str = ""
    unsolicited: bool = False
    request_id: str = ""
    params: bytes = Field(default=b"{}", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Return the subject this notification is published on."""
        return f"{self.SUBJECT}.{self.server}"


class ClientMessage(Message):
    """A client session's message outside calls. Sent by ingress to executors with its connections.

    `what` is `taken` (the request named by `about` was delivered to the client), `answered`
    (`body` is the raw `"result":…` or `"error":…` of the client's reply), `roots` (the client's
    roots changed), or `ended`.
    """

    SUBJECT: ClassVar[str] = "tb.client"
    BODY: ClassVar[str | None] = "body"

    session: str
    what: str
    about: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Return the subject this message is published on."""
        return f"{self.SUBJECT}.{self.session}"


class SessionMessage(Message):
    """A change of a session, sent by one ingress replica to the replica that holds its stream.

    `what` is `response` (the client's reply to a server's request, `body` is the JSON-RPC message),
    `message` (a reply for the stream of HTTP+SSE), `cancelled` (`about` is the raw id of the
    request), `subscribed` and `unsubscribed` (`about` is a URI), `task` (`about` is a server's task
    and `body` its handle), `level` (of logging), `declared` (`body` is the client's capabilities as
    JSON), or `ended`.
    """

    SUBJECT: ClassVar[str] = "tb.session"
    BODY: ClassVar[str | None] = "body"

    session: str
    what: str
    about: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """Return the subject this message is published on."""
        return f"{self.SUBJECT}.{self.session}"


class StreamReadRequest(Message):
    """A request of one ingress replica for the events of a stream that another replica holds.

    The request is repeated while the client is connected, and sent with `left` after the client
    disconnects. `reader` identifies the connection; `after` is the number of the last event the
    client received.
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
        """Return the subject this request is published on."""
        return f"{self.SUBJECT}.{self.replica}"


class StreamReadReply(Message):
    """One event of a stream, sent to the requesting replica on the reply subject of its request.

    `what` is `there` (the replica holds the stream and sends its events from now on), `event`
    (`body` is the JSON-RPC message, empty for an event that only has a number), `ended`, or
    `missing`.
    """

    BODY: ClassVar[str | None] = "body"

    reader: str
    what: str
    number: int = 0
    body: bytes = Field(default=b"", exclude=True, repr=False)
