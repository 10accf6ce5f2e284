"""What executor asks of oauth: with which token a server may be called for somebody."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class UpstreamTokenQuery(Query):
    """The token for a server's calls in a user's name; empty: the shared one. Asked by executor.

    With `listing` anybody's will do. `challenge` is what the server said when it refused, and
    `refused` SHA-256 of the token it refused, in hex.
    """

    SUBJECT: ClassVar[str] = "tb.query.oauth.upstream"
    AT_ONCE: ClassVar[int] = 1024

    server: str
    user: str = ""
    listing: bool = False
    challenge: str = Field(default="", repr=False)
    refused: str = Field(default="", repr=False)


class UpstreamTokenReply(Message):
    """A token, good until `ends` (seconds since the epoch); or none and what to do.

    `link` is the page at which the person consents, `reason` a sentence where nothing helps. `key`
    is the private key the token is bound to (RFC 9449), which proves each request; empty: to none.
    """

    token: str = Field(default="", repr=False)
    key: str = Field(default="", repr=False)
    ends: float = 0.0
    link: str = Field(default="", repr=False)
    reason: str = ""


class IdentityKeyQuery(Query):
    """The key that servers are told with who calls. Asked by executor, heard by oauth."""

    SUBJECT: ClassVar[str] = "tb.query.oauth.identitykey"


class IdentityKeyReply(Message):
    """The private key of now, its id among the public ones, and who signs with it."""

    issuer: str
    id: str
    key: str = Field(repr=False)
