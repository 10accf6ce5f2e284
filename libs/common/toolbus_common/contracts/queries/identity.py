"""Queries to oauth: pages, presented tokens, and commands of operators."""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class PageRequest(Query):
    """Handle one HTTP request for the authorization server. Sent by ingress, answered by oauth.

    `headers` has only those that the service reads, by lower-case name.
    """

    SUBJECT: ClassVar[str] = "tb.query.oauth.page"
    AT_ONCE: ClassVar[int] = 64
    BODY: ClassVar[str | None] = "body"

    method: str
    path: str
    query: str = Field(default="", repr=False)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    body: bytes = Field(default=b"", exclude=True, repr=False)


class PageReply(Message):
    """The HTTP response; each header is a pair of name and value.

    `rejected` is the reason if credentials were rejected; ingress counts rejections.
    """

    BODY: ClassVar[str | None] = "body"

    status: int
    headers: tuple[tuple[str, ...], ...] = Field(default=(), repr=False)
    rejected: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)


class TokenQuery(Query):
    """Return the holder of an access token. Sent by ingress at its first use, answered by oauth."""

    SUBJECT: ClassVar[str] = "tb.query.oauth.token"
    AT_ONCE: ClassVar[int] = 64

    token: str = Field(repr=False)


class Bearer(Message):
    """The holder of an access token, as resolved by oauth; also an entry of the bucket tb_tokens.

    `access` names the access rule that applies to the holder, `user` the person or machine,
    `client` the program that acts. The token is valid at `resource` only, until `ends` (seconds
    since the epoch). `handle` is the pseudonym of the user in recorded calls, which contain no
    names. `scope` is the token's OAuth scope (`toolbus_common.access.oauth_scopes`). `actors` are
    the machines that act in the user's name with an exchanged token, the nearest first. With `jkt`
    the token is valid only with a DPoP proof of the key with this thumbprint (RFC 9449).
    """

    access: str
    user: str
    client: str
    resource: str
    ends: float
    grant: str = ""
    handle: str = ""
    scope: str = "tools"
    actors: tuple[str, ...] = ()
    jkt: str = ""

    @property
    def name(self) -> str:
        """The principal's name, used in place of the name of a key."""
        return f"{self.access}:{self.handle or self.user}"

    @property
    def holder(self) -> str:
        """The holder's identity, the same for all tokens of the same client and resource."""
        return f"{self.client} {self.name} {self.resource}"


class IdentityRequest(Query):
    """Run an operator's command on accounts, clients or grants. Answered by oauth.

    `action` is the command. `about` is its parameters as raw JSON, and may contain secrets that
    only this service stores.
    """

    SUBJECT: ClassVar[str] = "tb.query.oauth.identity"

    action: str
    name: str = ""
    by: str = ""
    about: str = Field(default="{}", repr=False)


class IdentityReply(Message):
    """Rows of named values for display; secrets in them are returned only once."""

    rows: tuple[dict[str, Any], ...] = Field(default=(), repr=False)
