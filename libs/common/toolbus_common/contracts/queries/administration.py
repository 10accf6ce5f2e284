"""Requests of the HTTP administration API, sent by ingress to policy."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class AdminRequest(Query):
    """Run one administration operation with the rights of an administrator.

    Ingress sends this query to policy. Policy resolves `key_digest` itself, so ingress cannot
    assert an identity. `match` is the revision that the client has read (`If-Match`), or `*` for
    any revision. `form` is the format of `body`. `limit` and `after` select a page of a list, and
    `search` the entries whose names contain it.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.admin"
    AT_ONCE: ClassVar[int] = 4  # a report over many events takes long
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
    search: str = ""
    customer: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)


class AdminReply(Message):
    """The response to an administration operation.

    `revision` is the revision of the configuration, or 0 if the response does not depend on it.
    """

    BODY: ClassVar[str | None] = "body"

    revision: int = 0
    created: bool = False
    form: str = "json"
    body: bytes = Field(default=b"", exclude=True, repr=False)
