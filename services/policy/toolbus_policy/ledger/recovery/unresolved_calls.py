"""Names calls that never ended and of which the ledger knows nothing.

No money was held for them, or the intent reached the stream only after the sweeper had looked for
it and refunded the reservation. Such a call was not handed over. The intent is there, so the end
has to be.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic, time

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

log = logging.getLogger(__name__)

EVERYBODY = "*"  # no customer is named so
MARK = "unended"
HOUR = 3600.0
OVERLAP = 60.0  # seconds: clocks differ, and an intent may be spooled for a while
LOCK_SECONDS = 60.0
CATCH_UP_SECONDS = 30.0
ASK_SECONDS = 15.0
AUDIT = "audit"


@dataclass(slots=True)
class Unended:
    """Looks at what was allowed since all of it was known to have ended; one replica at a time.

    A call is named only once audit has every event the stream had after its deadline. Whoever
    looks next waits for the same, and so finds it named.
    """

    service: Service
    ledger: Ledger
    grace: float

    async def work(self) -> None:
        """Look, again and again, without end."""
        while True:
            await asyncio.sleep(max(1.0, 3 * self.grace))
            try:
                await self.look()
            except ToolbusError as error:
                log.info("unended.not_looked", extra={"reason": error.reason})
            except Exception:
                log.exception("unended.failed_inside")

    async def look(self) -> int:
        """Name what has not ended by its deadline; how many calls that were."""
        token = secrets.token_hex(8)
        if not await self.ledger.store.lock(EVERYBODY, token, LOCK_SECONDS):
            return 0
        try:
            return await self._look(time() - self.grace)
        finally:
            await self.ledger.store.unlock(EVERYBODY, token)

    async def _look(self, due: float) -> int:
        since = await self.ledger.store.recall(EVERYBODY, MARK) or due - HOUR
        asked = UnresolvedCallsQuery(start=since - OVERLAP, end=due)
        found, forgotten = await self._asked(asked), set[str]()
        if any(call.reserved for call in found.calls):
            forgotten = await self._forgotten(found.calls)
            found = await self._asked(asked)  # the ledger may have just heard of their outcomes
        late = [call for call in found.calls if call.deadline < due and _is_free(call, forgotten)]
        for call in late:
            await self.service.events.publish_until_durable(unknown_end(call))
        await self.ledger.store.remember(EVERYBODY, MARK, _until(found, late, due))
        if late:
            log.info("unended.named", extra={"calls": len(late)})
        return len(late)

    async def _asked(self, asked: UnresolvedCallsQuery) -> UnresolvedCallsReply:
        """Audit's answer, once it keeps every event that is in the stream now."""
        newest, give_up = await self.service.bus.newest(EVENTS), monotonic() + CATCH_UP_SECONDS
        while await self.service.bus.finished(EVENTS, AUDIT) < newest:
            if monotonic() > give_up:
                raise UnavailableError("Audit has not yet taken every event.")
            await asyncio.sleep(0.2)
        return await self.service.requests.ask(asked, UnresolvedCallsReply, ASK_SECONDS)

    async def _forgotten(self, calls: Iterable[UnresolvedCall]) -> set[str]:
        """Those that held money and of which the ledger has no record: the sweeper is done."""
        by_scope: dict[str, list[str]] = {}
        for call in calls:
            if call.reserved:
                by_scope.setdefault(call.customer, []).append(call.call_id)
        forgotten: set[str] = set()
        for customer, rids in by_scope.items():
            forgotten |= set(rids) - await self.ledger.known_of(customer, rids)
        return forgotten


def _is_free(call: UnresolvedCall, forgotten: set[str]) -> bool:
    """Whether no reservation holds anything for it."""
    return not call.reserved or call.call_id in forgotten


def _until(found: UnresolvedCallsReply, named: Sequence[UnresolvedCall], due: float) -> float:
    """When the first call was allowed that is not known to have ended, or later ones may be."""
    open_still = [call.at for call in found.calls if call not in named]
    if found.more:
        open_still.append(found.calls[-1].at)
    return min(open_still, default=due)


def unknown_end(call: UnresolvedCall) -> CallFailed:
    """The event about a call that was handed over and never heard of again."""
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
        charge=0 if call.reserved else call.charge,  # what was held was given back
        code="outcome_unknown",
        reason="No outcome came by the deadline; it may have happened.",
        sent=True,
    )
