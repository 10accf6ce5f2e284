"""Publish outcomes for calls that never ended and have no reservation.

Either no money was reserved for them, or the intent reached the stream only after the sweeper had
looked for it and refunded the reservation. Such a call was not dispatched, but its intent is in the
stream, so an outcome must follow.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic, time

from toolbus_common.concurrency import completely
from toolbus_common.contracts import (
    CallFailed,
    UnresolvedCall,
    UnresolvedCallsQuery,
    UnresolvedCallsReply,
)
from toolbus_common.errors import ToolbusError, UnavailableError
from toolbus_common.nats.topology import EVENTS
from toolbus_common.service.service import Service
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.recovery.intent_evidence import ended_in_stream

log = logging.getLogger(__name__)

ALL_CUSTOMERS = "*"  # not a valid customer name
MARK = "unended"
HOUR = 3600.0
OVERLAP = 60.0  # seconds: clocks differ, and an intent may wait in the outbox
LOCK_SECONDS = 60.0
CATCH_UP_SECONDS = 30.0
QUERY_SECONDS = 15.0
AUDIT = "audit"


@dataclass(slots=True)
class UnresolvedCallSweeper:
    """Sweeper of the calls allowed since the last complete sweep, in one replica at a time.

    An outcome is published only when audit has stored every event that the stream had after the
    call's deadline, and the stream has no outcome of the call. The next replica waits for the same
    condition and therefore finds that outcome.
    """

    service: Service
    ledger: Ledger
    grace: float

    async def run(self) -> None:
        """Sweep forever."""
        while True:
            await asyncio.sleep(max(1.0, 3 * self.grace))
            try:
                await self.sweep_once()
            except ToolbusError as error:
                log.info("unresolved_calls.sweep_postponed", extra={"reason": error.reason})
            except Exception:
                log.exception("unresolved_calls.sweep_failed")

    async def sweep_once(self) -> int:
        """Publish the missing outcomes of calls after their deadline; return their number."""
        token = secrets.token_hex(8)
        if not await self.ledger.store.lock(ALL_CUSTOMERS, token, LOCK_SECONDS):
            return 0
        try:
            return await self._sweep(time() - self.grace)
        finally:
            await completely(self.ledger.store.unlock(ALL_CUSTOMERS, token))

    async def _sweep(self, due: float) -> int:
        since = await self.ledger.store.read_number(ALL_CUSTOMERS, MARK) or due - HOUR
        query = UnresolvedCallsQuery(start=since - OVERLAP, end=due)
        found, settled = await self._query(query), set[str]()
        if any(call.reserved for call in found.calls):
            settled = await self._without_record(found.calls)
            found = await self._query(query)  # outcomes may have arrived meanwhile
        late = [
            call
            for call in found.calls
            if call.deadline < due and _has_no_reservation(call, settled)
        ]
        late = await self._without_outcome(late)
        for call in late:
            await self.service.events.publish_until_durable(unknown_end(call))
        await self.ledger.store.write_number(ALL_CUSTOMERS, MARK, _resolved_until(found, late, due))
        if late:
            log.info("unresolved_calls.published", extra={"calls": len(late)})
        return len(late)

    async def _without_outcome(self, late: list[UnresolvedCall]) -> list[UnresolvedCall]:
        """Return the calls that have no outcome in the stream either.

        A store that lacks messages, for example a new one, can have the intent of a call without
        its outcome. 'toolbus audit backfill' then stores the outcome.
        """
        by_customer: dict[str, list[UnresolvedCall]] = {}
        for call in late:
            by_customer.setdefault(call.customer, []).append(call)
        ended: set[str] = set()
        for customer, calls in by_customer.items():
            oldest = min(call.at for call in calls)
            ids = [call.call_id for call in calls]
            ended |= await ended_in_stream(self.service.bus, customer, ids, oldest)
        if ended:
            log.warning("unresolved_calls.outcomes_not_stored", extra={"calls": len(ended)})
        return [call for call in late if call.call_id not in ended]

    async def _query(self, query: UnresolvedCallsQuery) -> UnresolvedCallsReply:
        """Return audit's reply, after audit has stored every event that is in the stream now."""
        newest, timeout = await self.service.bus.newest(EVENTS), monotonic() + CATCH_UP_SECONDS
        while await self.service.bus.finished(EVENTS, AUDIT) < newest:
            if monotonic() > timeout:
                raise UnavailableError(
                    "Audit has not stored every event yet; start audit, or see 'toolbus status'."
                )
            await asyncio.sleep(0.2)
        return await self.service.requests.request(query, UnresolvedCallsReply, QUERY_SECONDS)

    async def _without_record(self, calls: Iterable[UnresolvedCall]) -> set[str]:
        """Return the reserved calls without a record, which the sweeper has already settled."""
        by_customer: dict[str, list[str]] = {}
        for call in calls:
            if call.reserved:
                by_customer.setdefault(call.customer, []).append(call.call_id)
        settled: set[str] = set()
        for customer, rids in by_customer.items():
            settled |= set(rids) - await self.ledger.recorded_calls(customer, rids)
        return settled


def _has_no_reservation(call: UnresolvedCall, settled: set[str]) -> bool:
    """Return whether the call has no open reservation."""
    return not call.reserved or call.call_id in settled


def _resolved_until(
    found: UnresolvedCallsReply, named: Sequence[UnresolvedCall], due: float
) -> float:
    """Return when the first call that may still be unresolved was allowed; else `due`."""
    open_still = [call.at for call in found.calls if call not in named]
    if found.more:
        open_still.append(found.calls[-1].at)
    return min(open_still, default=due)


def unknown_end(call: UnresolvedCall) -> CallFailed:
    """Return the outcome of a call whose outcome is missing."""
    return CallFailed(
        id=f"{call.call_id}.unknown",
        at=time(),
        customer=call.customer,
        call_id=call.call_id,
        parent_id=call.parent_id,
        trace_id=call.trace_id,
        key=call.key,
        server=call.server,
        tool=call.tool,
        method=call.method,
        charge=0 if call.reserved else call.charge,  # the reservation was refunded
        code="outcome_unknown",
        reason="The call has no outcome after its deadline. It may have been executed.",
        sent=True,
    )
