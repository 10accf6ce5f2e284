"""Queries to oauth: pages, access tokens, and commands of operators."""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class PageRequest(Query):
    """Process one HTTP request for the authorization server. Ingress sends this query to oauth.

    `headers` contains only the headers that oauth reads, by lower-case name.
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
    """The HTTP response. Each header is a pair of name and value.

    `rejected` is the reason if credentials were rejected. Ingress counts these rejections.
    """

    BODY: ClassVar[str | None] = "body"

    status: int
    headers: tuple[tuple[str, ...], ...] = Field(default=(), repr=False)
    rejected: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)


class TokenQuery(Query):
    """Return the holder of an access token.

    Ingress sends this query to oauth at the first use of a token.
    """

    SUBJECT: ClassVar[str] = "tb.query.oauth.token"
    AT_ONCE: ClassVar[int] = 64

    token: str = Field(repr=False)


class Bearer(Message):
    """The holder of an access token, as resolved by oauth; also an entry of the bucket tb_tokens.

    `access` is the access rule that applies to the holder. `user` is the person or machine.
    `client` is the program that acts. The token is valid only at `resource`, until `ends` (seconds
    since the epoch). `handle` is the pseudonym of the user in recorded calls, which contain no
    names. `scope` is the token's OAuth scope (`toolbus_common.access.oauth_scopes`). `actors` are
    the machines that act in the user's name with an exchanged token, the nearest first. If `jkt` is
    set, the token is valid only with a DPoP proof of the key with this thumbprint (RFC 9449).
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
        """The name of the principal, used in the same places as the name of a key."""
        return f"{self.access}:{self.handle or self.user}"

    @property
    def holder(self) -> str:
        """The identity of the holder, equal for all tokens of one user, client and resource."""
        return f"{self.client} {self.name} {self.resource}"


class SignInLinkQuery(Query):
    """Redeem the code of a sign-in link of the console, once. Ingress sends this query to oauth."""

    SUBJECT: ClassVar[str] = "tb.query.oauth.sign_in_link"
    AT_ONCE: ClassVar[int] = 4

    code: str = Field(repr=False, max_length=256)


class SignInLinkReply(Message):
    """The admin key that the link was created for; empty if the code is unknown or was used."""

    secret: str = Field(default="", repr=False)


class IdentityRequest(Query):
    """Run an operator's command on accounts, clients or grants. Operators send it to oauth.

    `action` is the command. `about` contains its parameters as raw JSON. They can include secrets
    that only oauth stores.
    """

    SUBJECT: ClassVar[str] = "tb.query.oauth.identity"

    action: str
    name: str = ""
    by: str = ""
    about: str = Field(default="{}", repr=False)


class IdentityReply(Message):
    """Rows of named values for display. A secret in them is returned only once."""

    rows: tuple[dict[str, Any], ...] = Field(default=(), repr=False)
