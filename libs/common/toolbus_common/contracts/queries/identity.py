"""What is asked of the oauth service: pages, tokens that are shown, what operators wish."""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class PageRequest(Query):
    """One HTTP request for the authorization server, as the edge took it. Heard by oauth.

    `headers` are those the service reads, by lower-case name.
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
    """The answer to it; each header is a name and a value.

    `rejected` says why, where it refuses somebody's credentials; ingress counts it.
    """

    BODY: ClassVar[str | None] = "body"

    status: int
    headers: tuple[tuple[str, ...], ...] = Field(default=(), repr=False)
    rejected: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)


class TokenQuery(Query):
    """Is this access token good, and whose is it? Asked by ingress when it first sees one."""

    SUBJECT: ClassVar[str] = "tb.query.oauth.token"
    AT_ONCE: ClassVar[int] = 64

    token: str = Field(repr=False)


class Bearer(Message):
    """Who holds an access token, as oauth found it: an entry of the bucket tb_tokens, too.

    `access` names the rule that covers its holder, `user` the person or machine, `client` the
    program that acts. It is good at `resource` alone, until `ends` (seconds since the epoch).
    `handle` stands for the user where calls are recorded, which keep no names. `scope` is what the
    token is for (`toolbus_common.access.oauth_scopes`), `actors` who act in the user's name with an
    exchanged token, the nearest first. With `jkt` it is good only beside a proof of the key that
    has this thumbprint (RFC 9449).
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
        """What stands for a key's name."""
        return f"{self.access}:{self.handle or self.user}"

    @property
    def holder(self) -> str:
        """Who holds it, whichever of theirs it is."""
        return f"{self.client} {self.name} {self.resource}"


class IdentityRequest(Query):
    """What an operator wishes of accounts, clients and grants. Heard by oauth.

    `about` is raw JSON, and may hold what only this service may keep.
    """

    SUBJECT: ClassVar[str] = "tb.query.oauth.identity"

    wish: str
    name: str = ""
    by: str = ""
    about: str = Field(default="{}", repr=False)


class IdentityReply(Message):
    """Rows of named values, to be shown; secrets among them are told once."""

    rows: tuple[dict[str, Any], ...] = Field(default=(), repr=False)
