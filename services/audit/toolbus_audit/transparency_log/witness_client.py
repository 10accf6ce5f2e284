"""Has declared witnesses cosign every log: the newest checkpoint, with proof that it only grew.

What a witness cosigned last is kept in the bucket, and from there on the hashes of the events that
came since, read from the stream: so it can be away for as long as it likes. A witness that knows
more than there is here, or something else, is an alarm: what audit keeps was lost or set back.
"""

import logging
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from time import time
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from toolbus_audit.delivery.http_client import HttpResponse, Poster, PostError, Request
from toolbus_audit.transparency_log.checkpoint_delivery import (
    FIRST_RETRY,
    Line,
    Newest,
    NotTakenError,
)
from toolbus_audit.transparency_log.consistency_proof import Growth
from toolbus_audit.transparency_log.cosignature import cosignatures, request_of, size_told
from toolbus_audit.transparency_log.sealer import LOGS, Log
from toolbus_common.config import Witness
from toolbus_common.config.audit.retention import cosigner_of
from toolbus_common.contracts import WitnessContradicted
from toolbus_common.contracts.queries.sql_text import quoted
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.stream_reader import StreamEntry
from toolbus_common.observability.metrics import WITNESS_BEHIND, WITNESS_FAILURES

log = logging.getLogger(__name__)

KNOWN = "witnessed."  # begins entries of the bucket that say what a witness cosigned last
MOST_TRIES = 3  # of one checkpoint, while the witness says that it knows another size
LARGEST_ANSWER = 65_536  # bytes
_TAKEN, _FORBIDDEN, _UNKNOWN, _CONFLICT, _NO_PROOF = 200, 403, 404, 409, 422

Read = Callable[
    [int, str], Awaitable[list[StreamEntry]]
]  # messages of a customer, from a number on
Tell = Callable[[list[tuple[str, Log]], str], Awaitable[None]]  # and who cosigned them


class Store(Protocol):
    """What keeps the checkpoints."""

    async def select(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to our own statement. Raises `StoreDownError`."""


class Mark(Struct):
    """What a witness knows of a log, and the log's growth since; hashes in Base64."""

    stream: str
    size: int = 0
    edge: tuple[str, ...] = ()
    since: tuple[tuple[int, str], ...] = ()
    to: int = 0  # the last message that is in it
    contradicted: int = -1  # the size for which the alarm was raised

    @property
    def growth(self) -> Growth:
        """As it can grow."""
        since = [(count, b64decode(node)) for count, node in self.since]
        return Growth(self.size, list(map(b64decode, self.edge)), since)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where hashes are from, and where cosigned checkpoints and alarms go."""

    bucket: Bucket
    read: Read
    store: Store
    tell: Tell
    publish: Callable[[WitnessContradicted], Awaitable[None]]


class Witnessing:
    """`declared` gives the witnesses as they are now; `named` whether the operator named one."""

    def __init__(
        self,
        declared: Callable[[], tuple[Witness, ...]],
        poster: Poster,
        named: Callable[[Witness], bool],
        sources: Sources,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self._declared = declared
        self._poster = poster
        self._named = named
        self._sources = sources
        self._marks: dict[Line, Mark] = {}
        self._sizes: dict[str, int] = {}
        self._newest = Newest("witness", self._deliver, first_retry)

    def tell(self, signed: list[tuple[str, Log]]) -> None:
        """Take checkpoints; return at once."""
        for witness in self._declared():
            for customer, each in signed:
                self._sizes[customer] = each.size
                self._newest.offer((witness.name, customer), each)
            self._measure(witness.name)

    async def close(self) -> None:
        """Stop; what was not cosigned is offered again after the next start."""
        await self._newest.close()

    def states(self) -> dict[str, str]:
        """For `toolbus status`: how far behind each witness is, and why."""
        return {witness.name: self._state(witness.name) for witness in self._declared()}

    def _state(self, name: str) -> str:
        why = {
            customer: why
            for (receiver, customer), why in self._newest.why.items()
            if receiver == name
        }
        behind = self._behind(name)
        if not why:
            return f"{behind} events behind" if behind else "ok"
        customer, reason = next(iter(why.items()))
        return f"{behind} events behind; {len(why)} logs not cosigned ({customer}: {reason})"

    def _behind(self, name: str) -> int:
        known = {
            customer: mark.size for (each, customer), mark in self._marks.items() if each == name
        }
        return max(
            (size - known.get(customer, 0) for customer, size in self._sizes.items()), default=0
        )

    def _measure(self, name: str) -> None:
        WITNESS_BEHIND.labels(name).set(self._behind(name))

    async def _deliver(self, line: Line, newest: Log) -> float:
        witness = {each.name: each for each in self._declared()}.get(line[0])
        if witness is None:
            return 0.0
        try:
            await self._cosign(witness, line, newest)
        except NotTakenError:
            WITNESS_FAILURES.labels(witness.name).inc()
            raise
        self._measure(witness.name)
        return 0.0

    async def _cosign(self, witness: Witness, line: Line, newest: Log) -> None:
        mark = await self._mark(line, newest)
        for _ in range(MOST_TRIES):
            if mark.size > newest.size:
                await self._contradict(line, newest, mark, mark.size, "it cosigned more events")
            mark = await self._grown(line, newest, mark)
            answered = await self._asked(witness, mark, newest)
            if answered.status == _TAKEN:
                await self._taken(witness, line, newest, mark, answered.body)
                return
            found = await self._refused(line, newest, mark, answered)
            mark = await self._keep(line, found)
        raise NotTakenError("it says again and again that it knows another size")

    async def _mark(self, line: Line, newest: Log) -> Mark:
        mark = self._marks.get(line)
        if mark is None:
            kept = await self._sources.bucket.get(_entry(line))
            mark = Mark(newest.stream)
            if kept is not None and kept.value:
                mark = msgspec.json.decode(kept.value, type=Mark)
        # A stream begun anew is another log, of which the witness knows nothing.
        return mark if mark.stream == newest.stream else Mark(newest.stream)

    async def _keep(self, line: Line, mark: Mark) -> Mark:
        self._marks[line] = mark
        await self._sources.bucket.put(_entry(line), msgspec.json.encode(mark))
        return mark

    async def _grown(self, line: Line, newest: Log, mark: Mark) -> Mark:
        """The mark with the hashes of all events up to the checkpoint."""
        growth, to = mark.growth, mark.to
        if not mark.size or growth.reach >= newest.size:
            return mark
        while to < newest.to and (kept := await self._sources.read(to + 1, line[1])):
            for message in kept:
                if message.sequence > newest.to:
                    break
                for event in message.data.split(b"\n"):
                    growth.append(event)
                to = message.sequence
            else:
                continue
            break
        if growth.reach != newest.size:
            raise NotTakenError(
                f"the stream no longer has the events after the first {growth.reach}, without "
                "which nothing proves that the log only grew since this witness last cosigned it"
            )
        since = tuple((count, b64encode(node).decode()) for count, node in growth.since)
        grown = Mark(mark.stream, mark.size, mark.edge, since, to, mark.contradicted)
        return await self._keep(line, grown)

    async def _asked(self, witness: Witness, mark: Mark, newest: Log) -> HttpResponse:
        headers = {"content-type": "text/plain; charset=utf-8", "user-agent": "toolbus"}
        body = request_of(mark.size, mark.growth.proof(), newest.note)
        request = Request("POST", f"{witness.url}/add-checkpoint", body, headers)
        ask = partial(self._poster.ask, request, named=self._named(witness), largest=LARGEST_ANSWER)
        try:
            return await self._newest.in_thread(ask)
        except PostError as error:
            raise NotTakenError(str(error)) from error

    async def _taken(
        self, witness: Witness, line: Line, newest: Log, mark: Mark, answer: bytes
    ) -> None:
        """Keep what it cosigned, and publish it."""
        lines = cosignatures(answer, newest.note, cosigner_of(witness.key))
        if not lines:
            raise NotTakenError("its answer is not signed with the key that is declared for it")
        note = newest.note + "".join(f"{each}\n" for each in lines)
        told = msgspec.structs.replace(newest, note=note)
        await self._sources.tell([(line[1], told)], witness.name)
        await self._keep(line, Mark(mark.stream, newest.size, newest.edge, (), newest.to))

    async def _refused(self, line: Line, newest: Log, mark: Mark, answered: HttpResponse) -> Mark:
        """What the witness knows instead. Raises `NotTakenError`."""
        known = size_told(answered.body) if answered.status == _CONFLICT else None
        if answered.status == _NO_PROOF or known == mark.size == newest.size:
            why = "its tree is another than ours"
            await self._contradict(line, newest, mark, mark.size, why)
        if known is not None and known > newest.size:
            await self._contradict(line, newest, mark, known, "it cosigned more events")
        if known == 0:
            return Mark(newest.stream)
        if known is not None:
            return await self._recalled(line, newest, mark, known)
        origin = newest.note.partition("\n")[0]
        raise NotTakenError(
            {
                _UNKNOWN: f"it does not know the log {origin}; have its operator add it",
                _FORBIDDEN: f"it has another key for the log {origin}; give its operator ours",
            }.get(answered.status, f"it answered {answered.status}")
        )

    async def _recalled(self, line: Line, newest: Log, mark: Mark, known: int) -> Mark:
        """Our own checkpoint of the size the witness knows."""
        found = await self._sources.store.select(
            f"SELECT edge, to FROM checkpoints WHERE customer = {quoted(line[1])}"  # noqa: S608
            f" AND stream = {quoted(newest.stream)} AND size = {known} LIMIT 1"
        )
        if known == newest.size:
            found = [(newest.edge, newest.to)]
        if not found:
            await self._contradict(line, newest, mark, known, "we never signed that size")
        ((edge, to),) = found
        return Mark(newest.stream, known, tuple(map(str, edge)), (), int(to), mark.contradicted)

    async def _contradict(self, line: Line, newest: Log, mark: Mark, known: int, why: str) -> None:
        """Raise the alarm, once for what it knows. Raises `NotTakenError` always."""
        name, customer = line
        await self._check_newest(line, newest)
        reason = f"it knows {known} events of this log, we have {newest.size}: {why}"
        log.error("witness.contradicted", extra={"witness": name, "reason": reason})
        if mark.contradicted != known:
            found = WitnessContradicted(
                id=f"{token_hex(10)}.contradicted",
                at=time(),
                customer=customer,
                witness=name,
                origin=newest.note.partition("\n")[0],
                known=known,
                size=newest.size,
                reason=reason,
            )
            await self._sources.publish(found)
            mark.contradicted = known
            await self._keep(line, mark)
        page = "docs/explanation/evidence.md, 'Distribution of checkpoints'"
        raise NotTakenError(f"CONTRADICTION: {reason}; see {page}")

    async def _check_newest(self, line: Line, newest: Log) -> None:
        """Raise `NotTakenError` where another audit seals by now, whose checkpoints are newer."""
        kept = await self._sources.bucket.get(LOGS + line[1])
        if kept is not None and kept.value:
            found = msgspec.json.decode(kept.value, type=Log)
            if (found.stream, found.size) != (newest.stream, newest.size):
                self._marks.pop(line, None)
                raise NotTakenError("there is a newer checkpoint by now")


def _entry(line: Line) -> str:
    return f"{KNOWN}{line[0]}.{line[1]}"
