"""Settle reservations from outcomes, and sweep reservations that expired without outcome."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic, time

import msgspec

from toolbus_common.contracts import CallExtended, CallFailed
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.broker import EventBatch
from toolbus_common.nats.topology import EVENTS
from toolbus_common.service.service import Service
from toolbus_policy.ledger.ledger import ExpiredReservation, Extension, Ledger, ReservationEnd
from toolbus_policy.ledger.recovery.intent_evidence import ended_in_stream, may_have_run

log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
SCRIPT_BATCH_SIZE = 500


class OutcomeFields(msgspec.Struct):
    """The fields of an outcome, or of an extension, that settlement reads."""

    event: str
    call_id: str
    customer: str
    charge: int = 0
    reserved: bool = False
    sent: bool = True
    result_type: str = "complete"
    deadline: float = 0.0
    has_reservation: bool = False

    @property
    def free(self) -> bool:
        """Whether the call costs nothing: it was not dispatched, or continues in another call."""
        return not self.sent or self.result_type == "input_required"


_outcome = msgspec.json.Decoder(OutcomeFields).decode


@dataclass(slots=True)
class SettlementConsumer:
    """Consumer of outcomes, and sweeper of expired reservations.

    An extension that was published before its reservation was due is applied before the reservation
    is examined, because the sweep waits for the consumer.
    """

    service: Service
    ledger: Ledger
    customers: Callable[[], Iterable[str]]
    grace: float
    _processed: float = 0.0  # every outcome published before this time was processed
    _marked: tuple[int, float] = (0, 0.0)  # a stream sequence, and when it was the newest

    async def handle_batch(self, messages: EventBatch) -> None:
        """Extend and end the reservations of these events; the broker then acknowledges them.

        Ending a reservation twice has no further effect, so a batch that failed partly is
        redelivered.
        """
        ends, extensions = list[ReservationEnd](), list[Extension]()
        for message in messages:
            ended, extended = parse_outcomes(message.data, self.grace)
            ends += ended
            extensions += extended
        for start in range(0, len(extensions), SCRIPT_BATCH_SIZE):
            await self.ledger.extend(extensions[start : start + SCRIPT_BATCH_SIZE])
        await self._settle(ends)

    async def note_newest(self) -> int:
        """Store the stream's newest sequence for later reservations, and return it.

        Raises `BusDownError`.
        """
        self.ledger.newest = await self.service.bus.newest(EVENTS)
        return self.ledger.newest

    async def sweep(self) -> None:
        """Charge expired reservations with an intent in the stream, and refund all others, forever.

        Only reservations due before the newest outcome that all replicas have processed are
        examined, because an outcome that a killed replica had received is redelivered later.
        Nothing is decided while the bus is unreachable.
        """
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.sweep_once()
            except ToolbusError as error:
                log.warning("settlement.sweep_failed", extra={"reason": error.reason})

    async def sweep_once(self) -> None:
        """Examine every customer's expired reservations."""
        processed = await self._processed_until()
        for customer in sorted(self.customers()):
            expired = await self.ledger.claim_expired(customer, processed)
            if expired:
                await self._settle_expired(customer, expired)

    async def _processed_until(self) -> float:
        now, newest = time(), await self.note_newest()
        marked, at = self._marked
        if await self.service.bus.finished(EVENTS, self.service.name) >= marked:
            self._processed, self._marked = at, (newest, now)
        return self._processed

    async def _settle_expired(self, customer: str, expired: list[ExpiredReservation]) -> None:
        began = monotonic()
        ran = await may_have_run(self.service.bus, customer, expired)
        # A replica that was killed before it settled the reservation has published the outcome.
        named = await ended_in_stream(
            self.service.bus, customer, ran, min(late.at for late in expired)
        )
        for late in expired:
            if late.rid in ran - named:
                await self.service.events.publish_until_durable(unknown_outcome(late))
        charged = [
            ReservationEnd(late.rid, customer, "unknown") for late in expired if late.rid in ran
        ]
        refunded = [
            ReservationEnd(late.rid, customer, "refund") for late in expired if late.rid not in ran
        ]
        await self._settle([*charged, *refunded])
        counts = {"charged": len(charged), "refunded": len(refunded)}
        log.info("settlement.swept", extra={**counts, "seconds": round(monotonic() - began, 3)})

    async def _settle(self, ends: list[ReservationEnd]) -> None:
        for start in range(0, len(ends), SCRIPT_BATCH_SIZE):
            await self.ledger.settle(ends[start : start + SCRIPT_BATCH_SIZE])


def parse_outcomes(lines: bytes, grace: float) -> tuple[list[ReservationEnd], list[Extension]]:
    """Return the reservations that one message of events ends, and the extensions in it.

    Other lines are ignored.
    """
    ends, extensions = list[ReservationEnd](), list[Extension]()
    for line in lines.split(b"\n"):
        try:
            outcome = _outcome(line)
        except msgspec.DecodeError:
            log.error("settlement.unreadable_event")  # noqa: TRY400 - the line itself is not logged
            continue
        if outcome.event == CallExtended.NAME:
            if outcome.has_reservation:
                due = outcome.deadline + grace
                extensions.append(Extension(outcome.call_id, outcome.customer, due))
        elif outcome.reserved:
            how = "refund" if outcome.free else "settle"
            ends.append(
                ReservationEnd(outcome.call_id, outcome.customer, how, outcome.charge)  # type: ignore[arg-type]
            )
    return ends, extensions


def unknown_outcome(late: ExpiredReservation) -> CallFailed:
    """Return the outcome of a call that may have run, charged in full."""
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
        # The reservation has ended: settlement must not end it a second time.
        reserved=False,
        code="outcome_unknown",
        reason="The call has no outcome after its deadline. It may have been executed, so it is "
        "charged in full.",
        sent=True,
    )
