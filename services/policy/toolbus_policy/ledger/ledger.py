"""The ledger: money, calls and rates in Redis, every change one atomic script over many calls."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Literal, TypeVar, cast

from toolbus_common.errors import LedgerDownError, LedgerRebuildingError, ToolbusError
from toolbus_common.messaging.batcher import Batcher
from toolbus_policy.ledger.epochs import Epochs, Known
from toolbus_policy.ledger.periods import Calendars
from toolbus_policy.ledger.reservation import About, Record
from toolbus_policy.ledger.reserve_args import Claim, Packing, refusal
from toolbus_policy.ledger.valkey_store import Store, inside, slot

log = logging.getLogger(__name__)

NOW = 1e11  # the year 5138: no bound but Redis' clock
MOST_OVERDUE = 1000  # claimed at once: their intents are looked for together
T = TypeVar("T")
How = Literal["settle", "refund", "unknown"]


@dataclass(frozen=True, slots=True)
class ReservationEnd:
    """How a reservation ends. `actual` is in micro-dollars and counts only for `settle`."""

    rid: str
    customer: str
    how: How
    actual: int = 0


@dataclass(frozen=True, slots=True)
class Extension:
    """A reservation that may last longer: until `due`, in seconds since the epoch."""

    rid: str
    customer: str
    due: float


@dataclass(frozen=True, slots=True)
class Overdue:
    """A reservation whose call should have ended. `at` is when it was made, epoch seconds."""

    rid: str
    customer: str
    at: int
    amount: int
    about: About


Changing = TypeVar("Changing", ReservationEnd, Extension)


@dataclass(slots=True)
class Book:
    """The counters of a customer as this process knows them: their epoch, the newest tick seen."""

    epoch: str
    tick: int
    marked: int


class Ledger:
    """Reserve and settle. All keys of one paying customer share one hash slot.

    An epoch is written to Redis and to the bus at a customer's first use, and every change
    counts on. Counters of another epoch, or behind what was seen of them, are not ours: an
    emptied Redis, or one restored from an older copy, never means fresh budgets.

    `newest` is the newest message of the stream this process has heard of; it goes into each
    reservation's `About.after`.
    """

    def __init__(self, url: str, epochs: Epochs, seconds: float = 1.0) -> None:
        self.store = Store(url, seconds)
        self.epochs = epochs
        self.on_lost: Callable[[str], None] = lambda _customer: None
        self.why_lost: dict[str, str] = {}
        self.newest = 0
        self._books: dict[str, Book] = {}
        self._calendars = Calendars()
        self._claims: Batcher[Claim, ToolbusError | None] = Batcher(
            self._reserve_all, concurrency=2
        )

    async def close(self) -> None:
        """Leave."""
        await self.store.close()

    async def reserve(self, claim: Claim) -> None:
        """Hold the price at every level and pass every rate and loop limit, or hold nothing.

        Raises:
            BudgetExceededError, RateExceededError, LoopDetectedError: naming level and limit.
            LedgerDownError: the counters cannot be read.
            LedgerRebuildingError: they are not the ones we know.

        """
        refused = await self._claims.add(claim)
        if refused is not None:
            raise refused

    async def settle(self, endings: Sequence[ReservationEnd]) -> None:
        """End reservations, each once however often it is told.

        Endings of counters that are lost are passed over: those are made anew from the events,
        which these endings come from. Raises `LedgerDownError`, also while that is under way;
        every other customer's are dealt with first.
        """
        await self._each(endings, self._settle)

    async def extend(self, extensions: Sequence[Extension]) -> None:
        """Postpone when reservations are due, those of calls that are still open.

        Raises `LedgerDownError`, also while counters are being rebuilt.
        """
        await self._each(extensions, self._extend)

    async def overdue(
        self, customer: str, until: float = NOW, most: int = MOST_OVERDUE
    ) -> list[Overdue]:
        """Claim reservations due before now, and before `until`. Raises `LedgerDownError`."""
        raw = await self._known(customer, lambda book: self._due(customer, book, until, most))
        if raw is None or raw == b"lost":
            return []
        pairs = zip(raw[::2], raw[1::2], strict=True)
        return [_overdue(customer, rid.decode(), record.decode()) for rid, record in pairs]

    async def known_of(self, customer: str, rids: Sequence[str]) -> set[str]:
        """Those of these calls the counters still know of. Raises `LedgerDownError`."""
        known = await self.epochs.known(customer)
        if known is None:
            return set()
        if await self.is_lost(customer, known):
            raise LedgerDownError(f"The ledger of {customer} is being rebuilt.")
        return await self.store.recorded(customer, known.epoch.id, rids)

    async def mark(self) -> None:
        """Tell the bus how far the counters have come since it was last told."""
        for customer, book in list(self._books.items()):
            if book.tick > book.marked:
                tick = book.tick
                await self.epochs.mark(customer, book.epoch, tick)
                book.marked = tick

    def marked(self, customer: str, epoch: str, tick: int) -> None:
        """Hear how far another replica has seen the counters come."""
        book = self._books.get(customer)
        if book is not None and book.epoch == epoch:
            book.tick = max(book.tick, tick)

    async def is_lost(self, customer: str, known: Known) -> bool:
        """Whether the counters in Redis are not those the bus and this process know."""
        epoch, tick = await self.store.book(customer)
        return epoch != known.epoch.id or tick < self._remember(customer, known).tick

    # -- scripts -----------------------------------------------------------------------------

    async def _reserve_all(self, claims: list[Claim]) -> Sequence[ToolbusError | None]:
        refusals: dict[str, ToolbusError | None] = {}
        groups = _grouped(claims, [claim.admission.payer.customer for claim in claims])
        for customer, group in groups.items():
            try:
                answers = await self._reserve_scope(customer, group)
            except ToolbusError as error:
                refusals |= {claim.rid: error for claim in group}
                continue
            for claim, answer in zip(group, answers, strict=True):
                refusals[claim.rid] = refusal(claim.admission, answer)
        return [refusals[claim.rid] for claim in claims]

    async def _reserve_scope(self, customer: str, claims: list[Claim]) -> list[list[Any]]:
        book = self._books.get(customer) or await self._agree(customer)
        answer = await self._reserve_in(customer, book, claims)
        if answer == b"epoch":  # another replica may have rebuilt them
            log.warning("ledger.epoch_differs", extra={"customer": customer})
            answer = await self._reserve_in(customer, await self._agree(customer), claims)
        if answer == b"epoch":
            self.on_lost(customer)
            raise lost(customer, self.why_lost.get(customer, ""))
        return cast("list[list[Any]]", answer)

    async def _reserve_in(self, customer: str, book: Book, claims: list[Claim]) -> Any:
        packing = Packing(customer, book.epoch)
        told = packing.packed(claims, self._calendars, time())
        answer = await self.store.run("reserve", packing.keys, [book.epoch, book.tick, told])
        if answer == b"epoch":
            return answer
        book.tick = max(book.tick, answer[0])
        return answer[1]

    async def _known(self, customer: str, work: Callable[[Book], Awaitable[Any]]) -> Any:
        """Work on counters the bus knows of; None where nothing was ever spent, or all is lost."""
        book = self._books.get(customer)
        if book is None:
            known = await self.epochs.known(customer)
            if known is None:
                return None
            book = self._remember(customer, known)
        answer = await work(book)
        if answer == b"lost":
            known = await self.epochs.known(customer)
            if known is not None and known.epoch.id != book.epoch:
                answer = await work(self._remember(customer, known))
        return answer

    async def _each(
        self,
        items: Sequence[Changing],
        change: Callable[[str, Book, list[Changing]], Awaitable[Any]],
    ) -> None:
        """Change the reservations of every customer; those being rebuilt make it raise at last."""
        waits = []
        for customer, group in _grouped(items, [each.customer for each in items]).items():
            if await self._known(customer, _changing(change, customer, group)) == b"wait":
                waits.append(customer)
        if waits:
            raise LedgerDownError(f"The ledger of {', '.join(waits)} is being rebuilt.")

    async def _extend(self, customer: str, book: Book, extensions: list[Extension]) -> Any:
        told = [part for each in extensions for part in (each.rid, int(each.due * 1000))]
        keys = [*_beside(customer, book), slot(customer, "lock")]
        return await self.store.run("extend", keys, [book.epoch, book.tick, *told])

    async def _settle(self, customer: str, book: Book, endings: list[ReservationEnd]) -> Any:
        told = [part for ending in endings for part in (ending.rid, ending.how, ending.actual)]
        keys = [*_beside(customer, book), slot(customer, "lock")]
        answer = await self.store.run("settle", keys, [book.epoch, book.tick, *told])
        if isinstance(answer, int):
            book.tick = max(book.tick, answer)
        return answer

    async def _due(self, customer: str, book: Book, until: float, most: int) -> Any:
        given = [book.epoch, book.tick, most, int(until * 1000)]
        return await self.store.run("due", _beside(customer, book), given)

    async def _agree(self, customer: str) -> Book:
        known = await self.epochs.known(customer)
        if known is None:
            # Redis decides between replicas that come first together; the bus then remembers.
            found = await self.store.begin(customer, secrets.token_hex(4))
            known = await self.epochs.begin(customer, found)
        return self._remember(customer, known)

    def _remember(self, customer: str, known: Known) -> Book:
        book = self._books.get(customer)
        if book is None or book.epoch != known.epoch.id:
            book = self._books[customer] = Book(known.epoch.id, known.tick, known.tick)
        book.tick = max(book.tick, known.tick)
        return book


def _changing(
    change: Callable[[str, Book, list[Changing]], Awaitable[Any]],
    customer: str,
    group: list[Changing],
) -> Callable[[Book], Awaitable[Any]]:
    return lambda book: change(customer, book, group)


def _beside(customer: str, book: Book) -> list[str]:
    return [
        slot(customer, "book"),
        *(inside(customer, book.epoch, own) for own in ("calls", "due")),
    ]


def _grouped(items: Sequence[T], customers: list[str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item, customer in zip(items, customers, strict=True):
        groups.setdefault(customer, []).append(item)
    return groups


def _overdue(customer: str, rid: str, record: str) -> Overdue:
    found = Record.decode(record)
    return Overdue(rid, customer, found.at, found.amount, About.decode(found.about))


def lost(customer: str, why: str = "") -> LedgerRebuildingError:
    """The sentence for counters that are not ours."""
    return LedgerRebuildingError(
        f"The ledger of {customer} has lost its counters; nothing may be spent until they are "
        f"rebuilt from the events. {why or 'That has begun: retry shortly.'}",
        customer=customer,
    )
