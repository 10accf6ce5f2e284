"""Queries of operators and policy to executor about the cache of model responses."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query

MAX_SHOWN = 1000


class CachedResponsesQuery(Query):
    """Return the newest cached responses without their content. Sent to executor.

    Each field that is not empty selects responses: those of a customer, provider, model at the
    provider, or API key, or the entry with this id.
    """

    SUBJECT: ClassVar[str] = "tb.query.executor.cached_responses"

    customer: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    entry: str = ""
    limit: int = Field(default=100, ge=1, le=MAX_SHOWN)


class CachedResponse(Message):
    """A cached response. `at` is its time in seconds since the epoch.

    `key` is the API key whose request was answered. `semantic` means that similar requests share
    the response.
    """

    entry: str
    customer: str
    provider: str
    model: str
    key: str
    at: float
    bytes: int
    semantic: bool = False


class CacheTotals(Message):
    """The number of cached responses of a customer at a provider, and their bytes."""

    customer: str
    provider: str
    entries: int
    bytes: int


class CachedResponsesReply(Message):
    """The newest selected responses, and the totals of all. `more` is true if some are missing."""

    responses: tuple[CachedResponse, ...] = ()
    totals: tuple[CacheTotals, ...] = ()
    more: bool = False


class PurgeCacheRequest(Query):
    """Remove cached responses. Operators and policy send this request to executor.

    The fields select responses as in `CachedResponsesQuery`. Without a selection, `everything` must
    be true. `by` is the operator.
    """

    SUBJECT: ClassVar[str] = "tb.query.executor.purge_cache"

    customer: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    entry: str = ""
    everything: bool = False
    by: str = ""


class PurgeCacheReply(Message):
    """The number of removed responses."""

    removed: int
