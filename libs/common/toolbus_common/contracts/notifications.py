"""Transient messages on core NATS. They are never stored; a receiver that misses one can query."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message


class ServerNotification(Message):
    """A server's notification outside calls, sent by executor to every ingress replica.

    `method` is the MCP method, such as `notifications/resources/updated`. `params` is raw JSON.
    Changes of lists are not sent here, because the catalog bucket publishes them. If `principal_id`
    is set, the notification is for clients of that principal only. If `session` is set, it is for
    that client session only. `unsolicited` marks the change of a resource without a subscription:
    it is for every session that is permitted to read the resource. If `request_id` is set, the
    message is a request to that client session, and a `ClientMessage` with this id is the reply.
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
        """The subject on which this notification is published."""
        return f"{self.SUBJECT}.{self.server}"


class ClientMessage(Message):
    """A message of a client session outside calls, sent by ingress to executors.

    Only executors with connections of this session use it. `what` is `taken` (the request `about`
    was delivered to the client), `answered` (`body` is the raw `"result":…` or `"error":…` of the
    client's reply), `roots` (the client's roots changed), or `ended`.
    """

    SUBJECT: ClassVar[str] = "tb.client"
    BODY: ClassVar[str | None] = "body"

    session: str
    what: str
    about: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """The subject on which this message is published."""
        return f"{self.SUBJECT}.{self.session}"


class SessionMessage(Message):
    """A change of a session, sent by one ingress replica to the replica that has its stream.

    `what` is one of:

    - `response`: a reply of the client to a server's request; `body` is the JSON-RPC message;
    - `message`: a reply for the stream of HTTP+SSE;
    - `cancelled`: the client cancelled a request; `about` is the raw request id;
    - `subscribed` or `unsubscribed`: `about` is a URI;
    - `task`: `about` is a server's task, and `body` is the handle of the task;
    - `level`: a new log level;
    - `declared`: `body` contains the client's capabilities as JSON;
    - `ended`.
    """

    SUBJECT: ClassVar[str] = "tb.session"
    BODY: ClassVar[str | None] = "body"

    session: str
    what: str
    about: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)

    @property
    def subject(self) -> str:
        """The subject on which this message is published."""
        return f"{self.SUBJECT}.{self.session}"


class StreamReadRequest(Message):
    """A request of one ingress replica for the events of a stream of another replica.

    The request is repeated while the client is connected. After the client disconnects, it is sent
    once with `left`. `reader` identifies the connection. `after` is the number of the last event
    that the client received.
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
        """The subject on which this request is published."""
        return f"{self.SUBJECT}.{self.replica}"


class StreamReadReply(Message):
    """One event of a stream, sent to the reply subject of a `StreamReadRequest`.

    `what` is `there` (the replica has the stream and sends its events from now on), `event` (`body`
    is the JSON-RPC message, or empty for an event that has only a number), `ended`, or `missing`.
    """

    BODY: ClassVar[str | None] = "body"

    reader: str
    what: str
    number: int = 0
    body: bytes = Field(default=b"", exclude=True, repr=False)
