"""Queries of executor to oauth: tokens for upstream servers, and the identity signing key."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class UpstreamTokenQuery(Query):
    """Return the token for a user's calls to a server; without `user` the shared token.

    Executor sends this query to oauth. With `listing`, the token of any user is accepted.
    `challenge` is the `WWW-Authenticate` header with which the server rejected a token. `rejected`
    is SHA-256 of the rejected token in hex. `claims` is a JSON object that identifies the caller in
    a token that Toolbus issues itself; it is empty for other servers.
    """

    SUBJECT: ClassVar[str] = "tb.query.oauth.upstream"
    AT_ONCE: ClassVar[int] = 1024

    server: str
    user: str = ""
    listing: bool = False
    challenge: str = Field(default="", repr=False)
    rejected: str = Field(default="", repr=False)
    claims: str = ""


class UpstreamTokenReply(Message):
    """A token, valid until `ends` (seconds since the epoch), or the way to obtain one.

    `link` is the page on which the user consents. `reason` is the error message if consent cannot
    help. `key` is the private key that the token is bound to (RFC 9449), and signs a proof for each
    request. It is empty for a bearer token.
    """

    token: str = Field(default="", repr=False)
    key: str = Field(default="", repr=False)
    ends: float = 0.0
    link: str = Field(default="", repr=False)
    reason: str = ""


class IdentityKeyQuery(Query):
    """Return the key that signs the caller's identity. Executor sends this query to oauth."""

    SUBJECT: ClassVar[str] = "tb.query.oauth.identitykey"


class IdentityKeyReply(Message):
    """The private key that signs identities.

    `id` is its id in the published key set, and `issuer` is the issuer in the signed tokens.
    """

    issuer: str
    id: str
    key: str = Field(repr=False)
