"""Queries of executor to oauth: tokens for upstream servers, and the identity signing key."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class UpstreamTokenQuery(Query):
    """Return the token for a server's calls by a user; without `user` the shared token.

    Sent by executor, answered by oauth. With `listing` the token of any user is accepted.
    `challenge` is the server's `WWW-Authenticate` header when it rejected a token, and `rejected`
    SHA-256 of that token in hex.
    """

    SUBJECT: ClassVar[str] = "tb.query.oauth.upstream"
    AT_ONCE: ClassVar[int] = 1024

    server: str
    user: str = ""
    listing: bool = False
    challenge: str = Field(default="", repr=False)
    rejected: str = Field(default="", repr=False)


class UpstreamTokenReply(Message):
    """A token, valid until `ends` (seconds since the epoch), or the way to get one.

    `link` is the page where the user consents, `reason` the error message if no consent helps.
    `key` is the private key that the token is bound to (RFC 9449), for the proof of each request;
    empty for a bearer token.
    """

    token: str = Field(default="", repr=False)
    key: str = Field(default="", repr=False)
    ends: float = 0.0
    link: str = Field(default="", repr=False)
    reason: str = ""


class IdentityKeyQuery(Query):
    """Return the key that signs the caller's identity. Sent by executor, answered by oauth."""

    SUBJECT: ClassVar[str] = "tb.query.oauth.identitykey"


class IdentityKeyReply(Message):
    """The current private key, its id in the published key set, and the issuer that signs."""

    issuer: str
    id: str
    key: str = Field(repr=False)
