"""Queries about runs of agent mode, which codemode answers."""

from typing import Any, ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class RunsRequest(Query):
    """List the runs of agent mode, show the run `run`, or cancel it with `cancel`.

    Operators and policy send this query to codemode. `after` is the id of the last run of the page
    before; the newest runs come first.
    """

    SUBJECT: ClassVar[str] = "tb.query.codemode.runs"
    AT_ONCE: ClassVar[int] = 8

    run: str = ""
    cancel: bool = False
    limit: int = 100
    after: str = ""


class OwnRunsRequest(Query):
    """Like `RunsRequest`, for the runs of one principal. Ingress sends this query to codemode.

    Codemode resolves `key_digest` itself, so ingress cannot assert an identity.
    """

    SUBJECT: ClassVar[str] = "tb.query.codemode.own_runs"
    AT_ONCE: ClassVar[int] = 8

    key_digest: str = Field(repr=False)
    run: str = ""
    cancel: bool = False
    limit: int = 100
    after: str = ""


class RunsReply(Message):
    """The runs, each as an object without content. `more` is true if older runs were omitted."""

    runs: tuple[dict[str, Any], ...]
    more: bool = False
