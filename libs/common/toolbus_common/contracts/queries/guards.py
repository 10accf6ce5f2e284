"""The query for a check of content by a service."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.guards import CheckedCall
from toolbus_common.contracts.queries.base import Query


class GuardQuery(Query):
    """Check content with a guard that asks another service. Sent by policy and codemode.

    `phase` is the phase of the guard, and `content` is the JSON document to check. The reply is a
    `ServiceVerdict`, or an error if the service could not be asked.
    """

    SUBJECT: ClassVar[str] = "tb.query.executor.guard"
    BODY: ClassVar[str | None] = "content"
    AT_ONCE: ClassVar[int] = 512

    guard: str
    phase: str
    call: CheckedCall
    content: bytes = Field(default=b"", exclude=True, repr=False)
