"""Settlement: outcomes end reservations; a reservation without an outcome ends by its time."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic, time

import msgspec

from toolbus_common.contracts import CallExtended, CallFailed
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import StoredMessage
from toolbus_common.nats.topology import EVENTS
from toolbus_common.service.service import Service
from toolbus_policy.ledger.ledger import Extension, Ledger, Overdue, ReservationEnd
from toolbus_policy.ledger.recovery.intent_evidence import may_have_run

log = logging.getLogger(__name__)

REAP_SECONDS = 1.0
MOST_PER_SCRIPT = 500


class Outcome(msgspec.Struct):
    """What settlement reads of an outcome, and of an event that extends a call."""

    event: str
    call_id: str
    customer: str
    charge: int = 0
    reserved: bool = False
    sent: bool = True
    ending: str = "complete"
    deadline: float = 0.0
    held: bool = False

    @property
    def free(self) -> bool:
        """Whether it costs nothing: nobody was reached, or the call goes on in another one."""
        return not self.sent or self.ending == "input_required"


_outcome = msgspec.json.Decoder(Outcome).decode


@dataclass(slots=True)
class Settlement:
    """Hears outcomes, and looks after reservations whose outcome never came.

    An extension that was published before its reservation was due is dealt with before the
    reservation is looked at: `reap` is never ahead of what was heard.
    """

    service: Service
    ledger: Ledger
    customers: Callable[[], Iterable[str]]
    grace: float
    _heard: float = 0.0  # every outcome said before this moment has been dealt with, by any replica
    _marked: tuple[int, float] = (0, 0.0)  # a message of the stream, and when it was the newest

    async def hear(self, messages: list[StoredMessage]) -> None:
        """Extend and end the reservations these events are about, then acknowledge.

        Telling an ending twice is harmless, so a batch that failed half-way simply comes again.
        """
        endings, extensions = list[ReservationEnd](), list[Extension]()
        for message in messages:
            ended, extended = read(message.data, self.grace)
            endings += ended
            extensions += extended
        for start in range(0, len(extensions), MOST_PER_SCRIPT):
            await self.ledger.extend(extensions[start : start + MOST_PER_SCRIPT])
        await self._settle(endings)
        for message in messages:
            await message.done()

    async def follow(self) -> int:
        """Note the stream's newest message for the reservations to come, and return it.

        Raises `BusDownError`.
        """
        self.ledger.newest = await self.service.bus.newest(EVENTS)
        return self.ledger.newest

    async def reap(self) -> None:
        """Without end: charge expired reservations whose intent is in the stream, refund the rest.

        Only what was due before the newest outcome that every replica has dealt with: one that a
        killed replica took with it comes again after a while, and until then nobody knows. While
        the bus is away nothing is decided.
        """
        while True:
            await asyncio.sleep(REAP_SECONDS)
            try:
                await self.reap_once()
            except ToolbusError as error:
                log.warning("settlement.reap_failed", extra={"reason": error.reason})

    async def reap_once(self) -> None:
        """Look at every customer's reservations."""
        heard = await self._heard_until()
        for customer in sorted(self.customers()):
            overdue = await self.ledger.overdue(customer, heard)
            if overdue:
                await self._reap(customer, overdue)

    async def _heard_until(self) -> float:
        now, newest = time(), await self.follow()
        marked, at = self._marked
        if await self.service.bus.finished(EVENTS, self.service.name) >= marked:
            self._heard, self._marked = at, (newest, now)
        return self._heard

    async def _reap(self, customer: str, overdue: list[Overdue]) -> None:
        began = monotonic()
        ran = await may_have_run(self.service.bus, customer, overdue)
        for late in overdue:
            if late.rid in ran:
                await self.service.events.publish_until_durable(unknown_outcome(late))
        charged = [
            ReservationEnd(late.rid, customer, "unknown") for late in overdue if late.rid in ran
        ]
        refunded = [
            ReservationEnd(late.rid, customer, "refund") for late in overdue if late.rid not in ran
        ]
        await self._settle([*charged, *refunded])
        told = {"charged": len(charged), "refunded": len(refunded)}
        log.info("settlement.reaped", extra={**told, "seconds": round(monotonic() - began, 3)})

    async def _settle(self, endings: list[ReservationEnd]) -> None:
        for start in range(0, len(endings), MOST_PER_SCRIPT):
            await self.ledger.settle(endings[start : start + MOST_PER_SCRIPT])


def read(lines: bytes, grace: float) -> tuple[list[ReservationEnd], list[Extension]]:
    """Return the reservations that one message of events ends, and those that it extends.

    A line that is neither is passed over.
    """
    endings, extensions = list[ReservationEnd](), list[Extension]()
    for line in lines.split(b"\n"):
        try:
            outcome = _outcome(line)
        except msgspec.DecodeError:
            log.error("settlement.unreadable_event")  # noqa: TRY400 - the line itself is not logged
            continue
        if outcome.event == CallExtended.NAME:
            if outcome.held:
                due = outcome.deadline + grace
                extensions.append(Extension(outcome.call_id, outcome.customer, due))
        elif outcome.reserved:
            how = "refund" if outcome.free else "settle"
            endings.append(
                ReservationEnd(outcome.call_id, outcome.customer, how, outcome.charge)  # type: ignore[arg-type]
            )
    return endings, extensions


def unknown_outcome(late: Overdue) -> CallFailed:
    """The event about a call that may have run and has no outcome: charged in full."""
    server, tool, key, trace, parent, _ = late.about
    return CallFailed(
        id=f"{late.rid}.unknown",
        at=time(),
        customer=late.customer,
        call_id=late.rid,
        parent_id=parent,
        trace_id=trace,
        key=key,
        server=server,
        tool=tool,
        charge=late.amount,
        # Already ended in the ledger: settlement must not take this for a second ending.
        reserved=False,
        code="outcome_unknown",
        reason="No outcome came by the deadline; it may have happened, so it is charged in full.",
        sent=True,
    )
