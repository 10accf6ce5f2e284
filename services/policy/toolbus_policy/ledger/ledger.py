"""The ledger: budgets, rates and loop limits in Redis; each change is one atomic script."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import time
from typing import Any, Literal, TypeVar

from toolbus_common.errors import LedgerDownError, LedgerRebuildingError, ToolbusError
from toolbus_common.messaging.batcher import Batch, Batcher
from toolbus_policy.ledger.generations import GenerationStore, KnownGeneration
from toolbus_policy.ledger.periods import PeriodCache
from toolbus_policy.ledger.reservation import CallContext, ReservationRecord
from toolbus_policy.ledger.reserve_args import ReservationRequest, ReserveArguments, error_of
from toolbus_policy.ledger.valkey_store import (
    BOOK,
    REDIS_ERRORS,
    ValkeyStore,
    customer_key,
    generation_key,
    ledger_down_error,
)

log = logging.getLogger(__name__)

NO_LIMIT = 1e11  # the year 5138: only the clock of Redis limits the search
MAX_LOGGED = 200  # characters of a reply
MAX_EXPIRED = 1000  # reservations claimed in one step; their intents are searched together
T = TypeVar("T")
EndKind = Literal["settle", "refund", "unknown"]


@dataclass(frozen=True, slots=True)
class ReservationEnd:
    """The end of a reservation. `actual` (micro-dollars) is used only if `how` is `settle`."""

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
Reservations = Batch[ReservationRequest, ToolbusError | None]


@dataclass(slots=True)
class CounterState:
    """A customer's counters as this process knows them: generation, newest tick, stored tick.

    `keys` are the keys of the generation that every script needs.
    """

    generation: str
    tick: int
    marked: int
    keys: list[str]


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
        # A script is sent again within `seconds`; it may take as long to arrive.
        self._remember_ms = int(seconds * 2000)
        self.generations = generations
        self.on_lost: Callable[[str], None] = lambda _customer: None
        self.rebuild_errors: dict[str, str] = {}
        self.newest = 0
        self._states: dict[str, CounterState] = {}
        self._calendars = PeriodCache()
        self._requests: dict[str, Batcher[ReservationRequest, ToolbusError | None]] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self.store.close()

    async def reserve(self, request: ReservationRequest) -> None:
        """Reserve the price at every level and pass every rate and loop limit, or change nothing.

        Raises:
            BudgetExceededError, RateExceededError, LoopDetectedError: a limit would be exceeded;
                the error names the limit and its level.
            LedgerDownError: the counters cannot be read.
            LedgerRebuildingError: the counters are lost and being rebuilt.

        """
        customer = request.admission.payer.customer
        requests = self._requests.get(customer)
        if requests is None:
            requests = self._requests[customer] = Batcher(partial(self._reserve_batch, customer))
        error = await requests.add(request)
        if error is not None:
            raise error

    async def preview(self, request: ReservationRequest) -> list[Any] | None:
        """Return the reply of the script `preview`; None if the customer has no counters yet.

        Nothing is reserved or counted. Raises `LedgerDownError` or `LedgerRebuildingError`.
        """
        customer = request.admission.payer.customer
        known = await self.generations.known(customer)
        if known is None:
            return None
        state = self._remember(customer, known)
        try:
            answer: Any = await self._send_calls("preview", customer, state, [request])
        except REDIS_ERRORS as error:
            raise ledger_down_error() from error
        if answer == b"epoch":
            raise rebuilding_error(customer, self.rebuild_errors.get(customer, ""))
        return list(answer)

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
        raw = await self._known(customer, lambda state: self._claim_due(state, until, maximum))
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
        """Store the newest tick of each customer on the bus, if it has increased."""
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

    def _reserve_batch(self, customer: str, batch: Reservations) -> None:
        """Send a batch of one customer; the reply to it ends the batch.

        A task is needed only if the state of the customer's counters is not known or has
        changed.
        """
        state = self._states.get(customer)
        if state is None:
            batch.run(self._reserve_agreed(customer, batch.items))
        else:
            reply = self._send_calls("reserve", customer, state, batch.items)
            reply.add_done_callback(partial(self._end_batch, customer, state, batch))

    def _end_batch(
        self, customer: str, state: CounterState, batch: Reservations, reply: asyncio.Future[Any]
    ) -> None:
        try:
            answer = reply.result()
            if answer == b"epoch":  # another replica may have rebuilt the counters
                batch.run(self._reserve_agreed(customer, batch.items))
                return
            errors = _errors_of(state, batch.items, answer)
        except REDIS_ERRORS:
            batch.reject(ledger_down_error())
        except BaseException as error:  # a batch that never ends would block its customer
            batch.reject(error)
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
        else:
            batch.resolve(errors)

    async def _reserve_agreed(
        self, customer: str, requests: list[ReservationRequest]
    ) -> list[ToolbusError | None]:
        """Reserve in the generation that is stored on the bus.

        Raises `LedgerDownError`, or `LedgerRebuildingError` if Redis has another generation.
        """
        state = await self._agree(customer)
        try:
            answer = await self._send_calls("reserve", customer, state, requests)
        except REDIS_ERRORS as error:
            raise ledger_down_error() from error
        if answer == b"epoch":
            self.on_lost(customer)
            raise rebuilding_error(customer, self.rebuild_errors.get(customer, ""))
        return _errors_of(state, requests, answer)

    def _send_calls(
        self, script: str, customer: str, state: CounterState, requests: list[ReservationRequest]
    ) -> asyncio.Future[Any]:
        arguments = ReserveArguments(customer, state.generation, state.keys)
        packed = arguments.packed(requests, self._calendars, time())
        remembered = self._remember_ms if script == "reserve" else script
        values = [state.generation, state.tick, remembered, packed]
        return self.store.send(script, arguments.keys, values)

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
        keys = [*state.keys, customer_key(customer, "lock")]
        answer = await self.store.run("extend", keys, [state.generation, state.tick, *changes])
        return answer if answer == b"ok" else _not_done(answer)

    async def _settle(self, customer: str, state: CounterState, ends: list[ReservationEnd]) -> Any:
        changes = [part for end in ends for part in (end.rid, end.how, end.actual)]
        keys = [*state.keys, customer_key(customer, "lock")]
        answer = await self.store.run("settle", keys, [state.generation, state.tick, *changes])
        if not isinstance(answer, int):
            return _not_done(answer)
        state.tick = max(state.tick, answer)
        return answer

    async def _claim_due(self, state: CounterState, until: float, maximum: int) -> Any:
        arguments = [state.generation, state.tick, maximum, int(until * 1000)]
        return await self.store.run("due", state.keys, arguments)

    async def _agree(self, customer: str) -> CounterState:
        known = await self.generations.known(customer)
        if known is None:
            # If replicas begin a generation concurrently, all use the one that Redis stored.
            found = await self.store.begin_generation(customer, secrets.token_hex(4))
            known = await self.generations.begin(customer, found)
        return self._remember(customer, known)

    def _remember(self, customer: str, known: KnownGeneration) -> CounterState:
        state = self._states.get(customer)
        if state is None or state.generation != known.generation.id:
            generation = known.generation.id
            keys = [
                customer_key(customer, BOOK),
                *(generation_key(customer, generation, name) for name in ("calls", "due")),
            ]
            state = self._states[customer] = CounterState(generation, known.tick, known.tick, keys)
        state.tick = max(state.tick, known.tick)
        return state


def _bind_group(
    change: Callable[[str, CounterState, list[Change]], Awaitable[Any]],
    customer: str,
    group: list[Change],
) -> Callable[[CounterState], Awaitable[Any]]:
    return lambda state: change(customer, state, group)


def _errors_of(
    state: CounterState, requests: Sequence[ReservationRequest], answer: list[Any]
) -> list[ToolbusError | None]:
    """Return each reservation's error, or None, from the script's reply; note the reply's tick.

    Raises `LedgerDownError` for a reply of another form. The calls are then denied, and their
    reservations are refunded when they are due.
    """
    try:
        tick, results = answer
        errors = [
            None if result[0] == b"ok" else error_of(request.admission, result)
            for request, result in zip(requests, results, strict=True)
        ]
        state.tick = max(state.tick, tick)
    except (TypeError, ValueError, LookupError, ArithmeticError, OSError) as error:
        raise _unreadable_error(answer) from error
    return errors


def _not_done(answer: Any) -> Any:
    """Return why a script changed nothing. Raises `LedgerDownError` for an unknown reason."""
    if answer in (b"lost", b"wait"):
        return answer
    raise _unreadable_error(answer)


def _unreadable_error(answer: Any) -> LedgerDownError:
    log.error("ledger.unreadable_reply", extra={"reply": repr(answer)[:MAX_LOGGED]})
    return ledger_down_error()


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
