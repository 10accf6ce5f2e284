"""The question of who administers over HTTP: one operation, asked of policy by ingress."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class AdminRequest(Query):
    """Do `operation` in the name of whoever holds the admin key. Heard by policy.

    Policy resolves `key_digest` itself: ingress can vouch for nobody. `match` is the revision that
    was seen, `*` for any; `form` says how `body` is written.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.admin"
    BODY: ClassVar[str | None] = "body"

    key_digest: str = Field(repr=False)
    operation: str
    kind: str = ""
    name: str = ""
    match: str = ""
    form: str = "json"
    dry_run: bool = False
    limit: int = 100
    after: str = ""
    customer: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)


class AdminReply(Message):
    """The answer as it is to be shown; `revision` is the configuration's, where it matters."""

    BODY: ClassVar[str | None] = "body"

    revision: int = 0
    created: bool = False
    form: str = "json"
    body: bytes = Field(default=b"", exclude=True, repr=False)
