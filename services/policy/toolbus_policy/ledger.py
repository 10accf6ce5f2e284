"""The ledger: money and rates in Redis, every change one atomic script over many calls at once."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Literal, Protocol, TypeVar, cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from toolbus_common.batching import Batcher
from toolbus_common.declared import MICRO, Period
from toolbus_common.errors import (
    BudgetExceededError,
    LedgerDownError,
    RateExceededError,
    ToolbusError,
)
from toolbus_policy.rules import Admission, Limit

log = logging.getLogger(__name__)

SECONDS = {Period.SECOND: 1, Period.MINUTE: 60, Period.HOUR: 3600, Period.DAY: 86_400}
T = TypeVar("T")
How = Literal["settle", "refund", "unknown"]
LEVELS_PER_RECORD = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """A reservation asked for. `due` is when a missing outcome is looked into, epoch seconds."""

    rid: str
    admission: Admission
    about: str
    due: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How a reservation ends. `actual` is in micro-dollars and counts only for `settle`."""

    rid: str
    scope: str
    how: How
    actual: int = 0


@dataclass(frozen=True, slots=True)
class Overdue:
    """A reservation whose call should have ended. `dispatched`: it may have been executed."""

    rid: str
    scope: str
    dispatched: bool
    amount: int
    about: str


class Epochs(Protocol):
    """Where the ledger's epochs are kept outside Redis."""

    async def known(self, scope: str) -> str | None:
        """The scope's epoch, or None before its first use."""
        ...

    async def begin(self, scope: str, epoch: str) -> str:
        """Keep an epoch unless there is one; the one that is kept."""
        ...


class Ledger:
    """Reserve, dispatch, settle. All keys of one paying customer share one hash slot.

    An epoch is written to Redis and to the bus at a customer's first use. Counters without
    the epoch the bus remembers are not ours: an emptied Redis never means fresh budgets.
    """

    def __init__(self, url: str, epochs: Epochs, seconds: float = 1.0) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 1),
            max_connections=16,
        )
        self._epochs = epochs
        self._epoch: dict[str, str] = {}
        self._reserve = self._script("reserve")
        self._dispatch = self._script("dispatch")
        self._settle = self._script("settle")
        self._due = self._script("due")
        self._claims: Batcher[Claim, ToolbusError | None] = Batcher(self._reserve_all, lanes=2)
        self._marks: Batcher[tuple[str, str], None] = Batcher(self._dispatch_all, lanes=1)

    def _script(self, name: str) -> AsyncScript:
        folder = files("toolbus_policy") / "lua"
        source = (folder / f"{name}.lua").read_text()
        if name != "dispatch":
            source = (folder / "shared.lua").read_text() + source
        return self._redis.register_script(source)

    async def close(self) -> None:
        """Write what is waiting and leave."""
        await self._marks.drain()
        await self._redis.aclose()

    async def reachable(self) -> bool:
        """Whether Redis answers now."""
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError):
            return False

    async def reserve(self, claim: Claim) -> None:
        """Hold the price at every level and pass every rate limit, or hold nothing.

        Raises:
            BudgetExceededError, RateExceededError: naming level, limit and reset.
            LedgerDownError: the counters cannot be read, or are not the ones we know.

        """
        refusal = await self._claims.add(claim)
        if refusal is not None:
            raise refusal

    def dispatch(self, scope: str, rid: str) -> None:
        """Mark as handed over. Not waited for: settlement ends a reservation in either state."""
        self._marks.add((scope, rid)).add_done_callback(_seen)

    async def settle(self, endings: Sequence[Ending]) -> None:
        """End reservations, each once however often it is told. Raises `LedgerDownError`."""
        for scope, group in _grouped(endings, [ending.scope for ending in endings]).items():
            arguments = [part for e in group for part in (e.rid, e.how, e.actual)]
            await self._run(self._settle, [f"{{{scope}}}:calls", f"{{{scope}}}:due"], arguments)

    async def overdue(self, scope: str, most: int = 200) -> list[Overdue]:
        """Claim reservations past their time. Raises `LedgerDownError`."""
        raw = await self._run(self._due, [f"{{{scope}}}:calls", f"{{{scope}}}:due"], [most])
        pairs = zip(raw[::2], raw[1::2], strict=True)
        return [_overdue(scope, rid.decode(), record.decode()) for rid, record in pairs]

    async def _reserve_all(self, claims: list[Claim]) -> Sequence[ToolbusError | None]:
        refusals: dict[str, ToolbusError | None] = {}
        groups = _grouped(claims, [claim.admission.principal.scope for claim in claims])
        for scope, group in groups.items():
            answers = await self._reserve_scope(scope, group)
            for claim, answer in zip(group, answers, strict=True):
                refusals[claim.rid] = _refusal(claim.admission, answer)
        return [refusals[claim.rid] for claim in claims]

    async def _reserve_scope(self, scope: str, claims: list[Claim]) -> list[list[Any]]:
        for attempt in (1, 2):
            epoch = self._epoch.get(scope) or await self._agree_on_epoch(scope)
            answers = await self._run(self._reserve, *_packed(scope, epoch, claims))
            if answers != b"epoch":
                return cast("list[list[Any]]", answers)
            self._epoch.pop(scope, None)
            log.warning("ledger.epoch_differs", extra={"scope": scope, "attempt": attempt})
        raise _lost(scope)

    async def _agree_on_epoch(self, scope: str) -> str:
        key = f"{{{scope}}}:epoch"
        try:
            known = await self._epochs.known(scope)
            if known is None:
                # Redis decides between replicas that come first together; the bus then remembers.
                await self._redis.set(key, datetime.now(UTC).isoformat(), nx=True)
                found = await self._redis.get(key)
                if not isinstance(found, bytes):
                    raise _lost(scope)
                known = await self._epochs.begin(scope, found.decode())
            elif await self._redis.get(key) != known.encode():
                raise _lost(scope)
        except (RedisError, OSError) as error:
            raise _down() from error
        self._epoch[scope] = known
        return known

    async def _dispatch_all(self, marks: list[tuple[str, str]]) -> Sequence[None]:
        for scope, group in _grouped(marks, [scope for scope, _ in marks]).items():
            await self._run(self._dispatch, [f"{{{scope}}}:calls"], [rid for _, rid in group])
        return [None] * len(marks)

    async def _run(self, script: AsyncScript, keys: list[str], arguments: list[Any]) -> Any:
        try:
            return await script(keys=keys, args=arguments)
        except (TimeoutError, RedisError, OSError) as error:
            raise _down() from error


def _grouped(items: Sequence[T], scopes: list[str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item, scope in zip(items, scopes, strict=True):
        groups.setdefault(scope, []).append(item)
    return groups


def _packed(scope: str, epoch: str, claims: list[Claim]) -> tuple[list[str], list[Any]]:
    """Keys and arguments of one reservation script; a level used by many calls is one key."""
    keys = [f"{{{scope}}}:epoch", f"{{{scope}}}:calls", f"{{{scope}}}:due"]
    index: dict[str, int] = {}

    def key_index(key: str) -> int:
        if key not in index:
            keys.append(f"{{{scope}}}:{key}")
            index[key] = len(keys)
        return index[key]

    told = [
        (
            claim.rid,
            claim.about,
            int(claim.due * 1000),
            claim.admission.charge,
            [
                (key_index(f"level:{limit.level}"), limit.budget.limit, limit.budget.per.value)
                for limit in claim.admission.budgets
                if limit.budget is not None
            ],
            [
                (
                    key_index(f"rate:{limit.level}"),
                    limit.rate.calls,
                    SECONDS[limit.rate.per] * 1_000_000,
                )
                for limit in claim.admission.principal.rates
                if limit.rate is not None
            ],
        )
        for claim in claims
    ]
    # One argument for all: the client encodes each argument apart, and slowly.
    return keys, [epoch, msgspec.json.encode(told)]


def _refusal(admission: Admission, answer: list[Any]) -> ToolbusError | None:
    kind = answer[0]
    if kind == b"budget":
        limit = admission.budgets[answer[1] - 1]
        return _over_budget(limit, spent=answer[2], held=answer[3], resets_at=answer[4])
    if kind == b"rate":
        return _over_rate(admission.principal.rates[answer[1] - 1], wait=answer[2] / 1_000_000)
    return None


def _over_budget(limit: Limit, *, spent: int, held: int, resets_at: int) -> BudgetExceededError:
    budget = limit.budget
    if budget is None:
        raise ValueError(limit.level)
    resets = datetime.fromtimestamp(resets_at, UTC).isoformat()
    return BudgetExceededError(
        f"Budget exceeded: {limit.level} has spent or holds ${(spent + held) / MICRO:g} "
        f"of ${budget.usd:g} per {budget.per}; it resets at {resets}.",
        level=limit.level,
        limit_usd=budget.usd,
        per=budget.per.value,
        spent_usd=spent / MICRO,
        held_usd=held / MICRO,
        resets_at=resets,
    )


def _over_rate(limit: Limit, *, wait: float) -> RateExceededError:
    rate = limit.rate
    if rate is None:
        raise ValueError(limit.level)
    return RateExceededError(
        f"Rate exceeded: {limit.level} may make {rate.calls} calls per {rate.per}; "
        f"retry in {wait:.3g} s.",
        level=limit.level,
        limit_calls=rate.calls,
        per=rate.per.value,
        retry_after=round(wait, 3),
    )


def _overdue(scope: str, rid: str, record: str) -> Overdue:
    state, amount, _levels, about = record.split("|", LEVELS_PER_RECORD)
    return Overdue(rid, scope, state == "d", int(amount), about)


def _down() -> LedgerDownError:
    return LedgerDownError(
        "The ledger (Redis) cannot be reached, so nothing may be spent; nothing was sent. Retry."
    )


def _lost(scope: str) -> LedgerDownError:
    return LedgerDownError(
        f"The ledger of {scope} has lost its counters, so nothing may be spent until they are "
        "rebuilt from the facts.",
        scope=scope,
    )


def _seen(future: "asyncio.Future[None]") -> None:
    """A mark that could not be written is no error of the call: its outcome settles it."""
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("ledger.not_marked", extra={"reason": str(error)})
