"""Answer operators: what runs have read, and the reset of a run as a recorded action."""

from time import time
from uuid import uuid4

from toolbus_common.contracts import FlowReset, FlowRunsQuery, FlowRunsReply, ResetFlowRequest
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import ConflictError, UnknownEntryError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_policy.flow.repository import NOTHING_READ, RunRepository, StoredRun

LISTED = 500
LONGEST_ID = 64
HEX = frozenset("0123456789abcdef")


class RunQueryHandler:
    """Handler of queries about runs."""

    def __init__(self, runs: RunRepository, events: EventPublisher) -> None:
        self._runs = runs
        self._events = events

    async def show(self, query: FlowRunsQuery) -> FlowRunsReply:
        """Return the runs that have read private or untrusted content, the newest first."""
        if query.run:
            stored = (await self._runs.load(_valid(query.run))).stored
            return FlowRunsReply(runs=(stored.shown(query.run),) if stored is not None else ())
        found = sorted([each async for each in self._runs.all()], key=lambda each: -each.ends)
        return FlowRunsReply(runs=tuple(found[:LISTED]), more=len(found) > LISTED)

    async def reset(self, request: ResetFlowRequest) -> FlowRunsReply:
        """Clear the record of what a run has read, after the event of the reset is stored.

        Raises:
            UnknownEntryError: the run has read nothing, or does not exist. An entry that cannot be
                read is reset.
            ConflictError: the run has read more content meanwhile.

        """
        loaded = await self._runs.load_to_reset(_valid(request.run))
        stored = loaded.stored
        if stored is None and loaded.revision:  # unreadable
            stored = StoredRun(NOTHING_READ, time(), "", "", DEFAULT_CUSTOMER)
        elif stored is None or loaded.state == NOTHING_READ:
            raise _unknown_error(request.run)
        private, untrusted = loaded.state.private, loaded.state.untrusted
        event = FlowReset(
            id=f"{uuid4().hex}.flow_reset",
            at=time(),
            customer=stored.customer,
            run=request.run,
            key=stored.key,
            private=private.call if private is not None else "",
            untrusted=untrusted.call if untrusted is not None else "",
            by=request.by,
            reason=request.note,
        )
        await self._events.publish_durable(event)
        cleared = StoredRun(NOTHING_READ, stored.ends, stored.scope, stored.key, stored.customer)
        if not await self._runs.put(request.run, cleared, loaded):
            raise ConflictError(
                "The run has read more content meanwhile; see 'toolbus flow runs', then repeat."
            )
        return FlowRunsReply(runs=(cleared.shown(request.run),))


def _valid(run: str) -> str:
    """Return the id of a run. Raises `UnknownEntryError` if it cannot be one."""
    if not 0 < len(run) <= LONGEST_ID or not set(run) <= HEX:
        raise _unknown_error(run[:LONGEST_ID])
    return run


def _unknown_error(run: str) -> UnknownEntryError:
    return UnknownEntryError(
        f"No run '{run}' has read private or untrusted content; 'toolbus flow runs' lists the runs."
    )
