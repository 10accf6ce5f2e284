"""The ledger: budgets, rates and loop limits in Redis; each change is one atomic script."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Literal, TypeVar, cast

from toolbus_common.errors import LedgerDownError, LedgerRebuildingError, ToolbusError
from toolbus_common.messaging.batcher import Batcher
from toolbus_policy.ledger.generations import GenerationStore, KnownGeneration
from toolbus_policy.ledger.periods import PeriodCache
from toolbus_policy.ledger.reservation import CallContext, ReservationRecord
from toolbus_policy.ledger.reserve_args import ReservationRequest, ReserveArguments, error_of
from toolbus_policy.ledger.valkey_store import BOOK, ValkeyStore, customer_key, generation_key

log = logging.getLogger(__name__)

NO_LIMIT = 1e11  # the year 5138, so that only the clock of Redis limits
MAX_EXPIRED = 1000  # reservations claimed in one step; their intents are searched together
T = TypeVar("T")
EndKind = Literal["settle", "refund", "unknown"]


@dataclass(frozen=True, slots=True)
class ReservationEnd:
    """How a reservation ends. `actual` is in micro-dollars and counts only for `settle`."""

    rid: str
    customer: str
    how: EndKind
    actual: int = 0


@dataclass(frozen=True, slots=True)
class Extension:
    """A later due time of a reservation, in seconds since the epoch."""

    rid: str
    customer: str
    due: float


@dataclass(frozen=True, slots=True)
class ExpiredReservation:
    """A reservation past its due time. `at` is when it was made, in seconds since the epoch."""

    rid: str
    customer: str
    at: int
    amount: int
    about: CallContext


Change = TypeVar("Change", ReservationEnd, Extension)


@dataclass(slots=True)
class CounterState:
    """A customer's counters as this process knows them: generation, newest tick, stored tick."""

    generation: str
    tick: int
    marked: int


class Ledger:
    """Reservations and their settlement. All keys of one customer share one hash slot.

    A generation is written to Redis and to the bus at a customer's first use, and every change
    increments its tick. Counters of another generation, or with a lower tick than is known, are
    treated as lost, so that an emptied or restored Redis never resets budgets.

    `newest` is the newest stream message this process knows; it is stored in each reservation's
    `CallContext.after`.
    """

    def __init__(self, url: str, generations: GenerationStore, seconds: float = 1.0) -> None:
        self.store = ValkeyStore(url, seconds)
        self.generations = generations
        self.on_lost: Callable[[str], None] = lambda _customer: None
        self.rebuild_errors: dict[str, str] = {}
        self.newest = 0
        self._states: dict[str, CounterState] = {}
        self._calendars = PeriodCache()
        self._requests: Batcher[ReservationRequest, ToolbusError | None] = Batcher(
            self._reserve_all, concurrency=2
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.store.close()

    async def reserve(self, request: ReservationRequest) -> None:
        """Reserve the price at every level and pass every rate and loop limit, or change nothing.

        Raises:
            BudgetExceededError, RateExceededError, LoopDetectedError: naming level and limit.
            LedgerDownError: the counters cannot be read.
            LedgerRebuildingError: the counters are lost and being rebuilt.

        """
        error = await self._requests.add(request)
        if error is not None:
            raise error

    async def settle(self, ends: Sequence[ReservationEnd]) -> None:
        """End reservations; each ends once, so the call is idempotent.

        Reservations of lost counters are skipped, because the rebuild reads the events of their
        outcomes. Raises `LedgerDownError`, also while counters are being rebuilt; the counters of
        all other customers are settled before.
        """
        await self._each(ends, self._settle)

    async def extend(self, extensions: Sequence[Extension]) -> None:
        """Postpone the due times of open reservations.

        Raises `LedgerDownError`, also while counters are being rebuilt.
        """
        await self._each(extensions, self._extend)

    async def claim_expired(
        self, customer: str, until: float = NO_LIMIT, maximum: int = MAX_EXPIRED
    ) -> list[ExpiredReservation]:
        """Claim reservations due before now, and before `until`. Raises `LedgerDownError`."""
        raw = await self._known(
            customer, lambda state: self._claim_due(customer, state, until, maximum)
        )
        if raw is None or raw == b"lost":
            return []
        pairs = zip(raw[::2], raw[1::2], strict=True)
        return [_decode_expired(customer, rid.decode(), record.decode()) for rid, record in pairs]

    async def recorded_calls(self, customer: str, rids: Sequence[str]) -> set[str]:
        """Return which of these calls have a reservation record. Raises `LedgerDownError`."""
        known = await self.generations.known(customer)
        if known is None:
            return set()
        if await self.is_lost(customer, known):
            raise LedgerDownError(f"The ledger of '{customer}' is being rebuilt; retry shortly.")
        return await self.store.recorded(customer, known.generation.id, rids)

    async def mark(self) -> None:
        """Store the newest ticks on the bus."""
        for customer, state in list(self._states.items()):
            if state.tick > state.marked:
                tick = state.tick
                await self.generations.mark(customer, state.generation, tick)
                state.marked = tick

    def observe_mark(self, customer: str, generation: str, tick: int) -> None:
        """Apply the tick that another replica has seen."""
        state = self._states.get(customer)
        if state is not None and state.generation == generation:
            state.tick = max(state.tick, tick)

    async def is_lost(self, customer: str, known: KnownGeneration) -> bool:
        """Return whether Redis has another generation, or a lower tick, than this process knows."""
        generation, tick = await self.store.read_state(customer)
        return generation != known.generation.id or tick < self._remember(customer, known).tick

    # -- scripts -----------------------------------------------------------------------------

    async def _reserve_all(
        self, requests: list[ReservationRequest]
    ) -> Sequence[ToolbusError | None]:
        errors: dict[str, ToolbusError | None] = {}
        groups = _group(requests, [request.admission.payer.customer for request in requests])
        for customer, group in groups.items():
            try:
                answers = await self._reserve_for(customer, group)
            except ToolbusError as error:
                errors |= {request.rid: error for request in group}
                continue
            for request, answer in zip(group, answers, strict=True):
                errors[request.rid] = error_of(request.admission, answer)
        return [errors[request.rid] for request in requests]

    async def _reserve_for(
        self, customer: str, requests: list[ReservationRequest]
    ) -> list[list[Any]]:
        state = self._states.get(customer) or await self._agree(customer)
        answer = await self._reserve_in(customer, state, requests)
        if answer == b"epoch":  # another replica may have rebuilt the counters
            log.warning("ledger.generation_differs", extra={"customer": customer})
            answer = await self._reserve_in(customer, await self._agree(customer), requests)
        if answer == b"epoch":
            self.on_lost(customer)
            raise rebuilding_error(customer, self.rebuild_errors.get(customer, ""))
        return cast("list[list[Any]]", answer)

    async def _reserve_in(
        self, customer: str, state: CounterState, requests: list[ReservationRequest]
    ) -> Any:
        arguments = ReserveArguments(customer, state.generation)
        packed = arguments.packed(requests, self._calendars, time())
        answer = await self.store.run(
            "reserve", arguments.keys, [state.generation, state.tick, packed]
        )
        if answer == b"epoch":
            return answer
        state.tick = max(state.tick, answer[0])
        return answer[1]

    async def _known(self, customer: str, work: Callable[[CounterState], Awaitable[Any]]) -> Any:
        """Run `work` on a customer's counters. Return None if the customer has no counters yet."""
        state = self._states.get(customer)
        if state is None:
            known = await self.generations.known(customer)
            if known is None:
                return None
            state = self._remember(customer, known)
        answer = await work(state)
        if answer == b"lost":
            known = await self.generations.known(customer)
            if known is not None and known.generation.id != state.generation:
                answer = await work(self._remember(customer, known))
        return answer

    async def _each(
        self,
        items: Sequence[Change],
        change: Callable[[str, CounterState, list[Change]], Awaitable[Any]],
    ) -> None:
        """Apply `change` to every customer; raise at the end if counters are being rebuilt."""
        waits = []
        for customer, group in _group(items, [each.customer for each in items]).items():
            if await self._known(customer, _bind_group(change, customer, group)) == b"wait":
                waits.append(customer)
        if waits:
            raise LedgerDownError(
                f"The ledger of {', '.join(waits)} is being rebuilt; retry shortly."
            )

    async def _extend(self, customer: str, state: CounterState, extensions: list[Extension]) -> Any:
        changes = [part for each in extensions for part in (each.rid, int(each.due * 1000))]
        keys = [*_reservation_keys(customer, state), customer_key(customer, "lock")]
        return await self.store.run("extend", keys, [state.generation, state.tick, *changes])

    async def _settle(self, customer: str, state: CounterState, ends: list[ReservationEnd]) -> Any:
        changes = [part for end in ends for part in (end.rid, end.how, end.actual)]
        keys = [*_reservation_keys(customer, state), customer_key(customer, "lock")]
        answer = await self.store.run("settle", keys, [state.generation, state.tick, *changes])
        if isinstance(answer, int):
            state.tick = max(state.tick, answer)
        return answer

    async def _claim_due(
        self, customer: str, state: CounterState, until: float, maximum: int
    ) -> Any:
        arguments = [state.generation, state.tick, maximum, int(until * 1000)]
        return await self.store.run("due", _reservation_keys(customer, state), arguments)

    async def _agree(self, customer: str) -> CounterState:
        known = await self.generations.known(customer)
        if known is None:
            # If replicas begin concurrently, Redis decides; the bus then stores the result.
            found = await self.store.begin_generation(customer, secrets.token_hex(4))
            known = await self.generations.begin(customer, found)
        return self._remember(customer, known)

    def _remember(self, customer: str, known: KnownGeneration) -> CounterState:
        state = self._states.get(customer)
        if state is None or state.generation != known.generation.id:
            state = self._states[customer] = CounterState(
                known.generation.id, known.tick, known.tick
            )
        state.tick = max(state.tick, known.tick)
        return state


def _bind_group(
    change: Callable[[str, CounterState, list[Change]], Awaitable[Any]],
    customer: str,
    group: list[Change],
) -> Callable[[CounterState], Awaitable[Any]]:
    return lambda state: change(customer, state, group)


def _reservation_keys(customer: str, state: CounterState) -> list[str]:
    return [
        customer_key(customer, BOOK),
        *(generation_key(customer, state.generation, own) for own in ("calls", "due")),
    ]


def _group(items: Sequence[T], customers: list[str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item, customer in zip(items, customers, strict=True):
        groups.setdefault(customer, []).append(item)
    return groups


def _decode_expired(customer: str, rid: str, record: str) -> ExpiredReservation:
    found = ReservationRecord.decode(record)
    return ExpiredReservation(
        rid, customer, found.at, found.amount, CallContext.decode(found.about)
    )


def rebuilding_error(customer: str, why: str = "") -> LedgerRebuildingError:
    """Return the error for lost counters."""
    return LedgerRebuildingError(
        f"The ledger of '{customer}' lost its counters; paid calls are denied until they are "
        f"rebuilt from the events. {why or 'The rebuild has started: retry shortly.'}",
        customer=customer,
    )
