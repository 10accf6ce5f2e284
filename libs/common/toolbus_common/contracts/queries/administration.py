"""Requests of the HTTP administration API, sent by ingress to policy."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class AdminRequest(Query):
    """Run one administration operation for the holder of an admin key.

    Sent by ingress, answered by policy. Policy resolves `key_digest` itself: ingress cannot assert
    an identity. `match` is the revision the client read (`If-Match`), `*` for any. `form` is the
    format of `body`. `limit` and `after` page through lists.
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
    """The response to an operation; `revision` is the configuration's, if it applies."""

    BODY: ClassVar[str | None] = "body"

    revision: int = 0
    created: bool = False
    form: str = "json"
    body: bytes = Field(default=b"", exclude=True, repr=False)
