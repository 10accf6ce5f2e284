"""Questions about recorded calls that each store of events answers in its own way."""

from typing import Any, Protocol

from toolbus_common.contracts import (
    TOOLS_CALL,
    OpenCallsQuery,
    SpendingQuery,
    UnresolvedCall,
    UnresolvedCallsQuery,
)
from toolbus_common.contracts.model_calls import MODEL_METHODS

MAX_ROWS = 10_000  # of charges and open calls in one answer
MAX_UNRESOLVED = 1000
NO_EVENT = 1e18  # the time of the oldest event if there is none
CHARGED_METHODS = tuple(sorted({TOOLS_CALL, *MODEL_METHODS}))  # methods of calls with a price


class RecordedCalls(Protocol):
    """Calls as the stored events record them. Lists have at most one row above their maximum."""

    async def charges(self, query: SpendingQuery) -> list[list[Any]]:
        """Return the charges by key, user, team, server, tool, step, and aliases if requested."""

    async def oldest(self) -> float:
        """Return the time of the oldest event, or `NO_EVENT`."""

    async def messages(self, query: SpendingQuery) -> int:
        """Return how many messages of the customer are stored, as events or as dead letters."""

    async def sequences(self, query: SpendingQuery) -> tuple[int, ...]:
        """Return which of the query's messages are stored."""

    async def ids(self, query: SpendingQuery) -> tuple[str, ...]:
        """Return which of the query's events are stored."""

    async def open_calls(self, query: OpenCallsQuery) -> list[list[Any]]:
        """Return the calls without an outcome, with the fields of `OpenCall` in order."""

    async def unresolved(self, query: UnresolvedCallsQuery) -> list[UnresolvedCall]:
        """Return the unresolved calls of a period, the oldest first."""
