"""Request cosignatures of witnesses for the latest checkpoint of every log, with a proof.

The bucket stores the last checkpoint that a witness cosigned, and the hashes of the events added
since then, read from the stream. Therefore a witness may be unavailable for any length of time. If
a witness has cosigned more events, or other events, than audit has, data of audit was lost or
reset, and an alarm is raised.
"""

import logging
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from secrets import token_hex
from time import time
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from toolbus_audit.transparency_log.checkpoint_delivery import (
    FIRST_RETRY,
    LatestCheckpoints,
    NotAcceptedError,
    Recipient,
)
from toolbus_audit.transparency_log.consistency_proof import LogGrowth
from toolbus_audit.transparency_log.cosignature import (
    add_checkpoint_body,
    conflicting_size,
    cosignatures,
)
from toolbus_audit.transparency_log.log_signer import LOGS, Log
from toolbus_common.config import Witness
from toolbus_common.config.audit.retention import cosigner_of
from toolbus_common.contracts import WitnessContradicted
from toolbus_common.contracts.queries.sql_text import quoted
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest, HttpResponse
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.stream_reader import StreamEntry
from toolbus_common.observability.metrics import WITNESS_BEHIND, WITNESS_FAILURES

log = logging.getLogger(__name__)

STATE_PREFIX = "witnessed."  # prefix of bucket entries with a `WitnessState`
MAX_ATTEMPTS = 3  # attempts for one checkpoint while the witness reports another size
LARGEST_RESPONSE = 65_536  # bytes
_ACCEPTED, _FORBIDDEN, _UNKNOWN, _CONFLICT, _NO_PROOF = 200, 403, 404, 409, 422

# Reads messages. Arguments: the first sequence, and the customer.
Read = Callable[[int, str], Awaitable[list[StreamEntry]]]
# Publishes pairs of a customer and a checkpoint, cosigned by the named witness.
Publish = Callable[[list[tuple[str, Log]], str], Awaitable[None]]


class Store(Protocol):
    """Store of checkpoints."""

    async def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query of audit itself. Raises `StoreDownError`."""


class WitnessState(Struct):
    """Last log state that a witness cosigned, and the log's growth since; hashes are in Base64."""

    stream: str
    size: int = 0
    edge: tuple[str, ...] = ()
    since: tuple[tuple[int, str], ...] = ()
    to: int = 0  # sequence of the last message included
    contradicted: int = -1  # size for which the alarm was raised

    @property
    def growth(self) -> LogGrowth:
        """The growth, decoded."""
        since = [(count, b64decode(node)) for count, node in self.since]
        return LogGrowth(self.size, list(map(b64decode, self.edge)), since)


@dataclass(frozen=True, slots=True)
class Sources:
    """Sources of hashes and checkpoints, and destinations of cosigned checkpoints and alarms."""

    bucket: Bucket
    read: Read
    store: Store
    publish_cosigned: Publish
    publish: Callable[[WitnessContradicted], Awaitable[None]]


class WitnessClient:
    """Client of the witnesses that `configured` returns.

    `is_operator_named` returns whether the operator (not an API caller) configured a witness.
    """

    def __init__(
        self,
        configured: Callable[[], tuple[Witness, ...]],
        http: HttpClient,
        is_operator_named: Callable[[Witness], bool],
        sources: Sources,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self._configured = configured
        self._http = http
        self._is_operator_named = is_operator_named
        self._sources = sources
        self._witness_states: dict[Recipient, WitnessState] = {}
        self._sizes: dict[str, int] = {}
        self._pending = LatestCheckpoints("witness", self._deliver, first_retry)

    def offer(self, signed: list[tuple[str, Log]]) -> None:
        """Queue checkpoints without waiting for cosignatures."""
        for witness in self._configured():
            for customer, each in signed:
                self._sizes[customer] = each.size
                self._pending.offer((witness.name, customer), each)
            self._measure(witness.name)

    async def close(self) -> None:
        """Stop. Checkpoints that are not cosigned are offered again after the next start."""
        await self._pending.close()

    def states(self) -> dict[str, str]:
        """Return the backlog and the error of each witness, for `toolbus status`."""
        return {witness.name: self._summary(witness.name) for witness in self._configured()}

    def _summary(self, name: str) -> str:
        problems = {
            customer: problem
            for (receiver, customer), problem in self._pending.problems.items()
            if receiver == name
        }
        behind = self._behind(name)
        if not problems:
            return f"{behind} events behind" if behind else "ok"
        customer, reason = next(iter(problems.items()))
        return f"{behind} events behind; {len(problems)} logs not cosigned ({customer}: {reason})"

    def _behind(self, name: str) -> int:
        known = {
            customer: state.size
            for (each, customer), state in self._witness_states.items()
            if each == name
        }
        return max(
            (size - known.get(customer, 0) for customer, size in self._sizes.items()), default=0
        )

    def _measure(self, name: str) -> None:
        WITNESS_BEHIND.labels(name).set(self._behind(name))

    async def _deliver(self, recipient: Recipient, checkpoint: Log) -> float:
        witness = {each.name: each for each in self._configured()}.get(recipient[0])
        if witness is None:
            return 0.0
        try:
            await self._cosign(witness, recipient, checkpoint)
        except NotAcceptedError:
            WITNESS_FAILURES.labels(witness.name).inc()
            raise
        self._measure(witness.name)
        return 0.0

    async def _cosign(self, witness: Witness, recipient: Recipient, checkpoint: Log) -> None:
        state = await self._load_state(recipient, checkpoint)
        for _ in range(MAX_ATTEMPTS):
            if state.size > checkpoint.size:
                await self._raise_alarm(
                    recipient, checkpoint, state, state.size, "it cosigned more events"
                )
            state = await self._append_new_events(recipient, checkpoint, state)
            response = await self._post_checkpoint(witness, state, checkpoint)
            if response.status == _ACCEPTED:
                await self._accept(witness, recipient, checkpoint, state, response.body)
                return
            found = await self._resolve_rejection(recipient, checkpoint, state, response)
            state = await self._save(recipient, found)
        raise NotAcceptedError(f"it reported a different size in each of {MAX_ATTEMPTS} attempts")

    async def _load_state(self, recipient: Recipient, checkpoint: Log) -> WitnessState:
        state = self._witness_states.get(recipient)
        if state is None:
            stored = await self._sources.bucket.get(_entry(recipient))
            state = WitnessState(checkpoint.stream)
            if stored is not None and stored.value:
                state = msgspec.json.decode(stored.value, type=WitnessState)
        # A re-created stream is another log, which the witness does not know.
        return state if state.stream == checkpoint.stream else WitnessState(checkpoint.stream)

    async def _save(self, recipient: Recipient, state: WitnessState) -> WitnessState:
        self._witness_states[recipient] = state
        await self._sources.bucket.put(_entry(recipient), msgspec.json.encode(state))
        return state

    async def _append_new_events(
        self, recipient: Recipient, checkpoint: Log, state: WitnessState
    ) -> WitnessState:
        """Return the state with the hashes of all events up to the checkpoint."""
        growth, to = state.growth, state.to
        if not state.size or growth.current_size >= checkpoint.size:
            return state
        while to < checkpoint.to and (found := await self._sources.read(to + 1, recipient[1])):
            for message in found:
                if message.sequence > checkpoint.to:
                    break
                for event in message.data.split(b"\n"):
                    growth.append(event)
                to = message.sequence
            else:
                continue
            break
        if growth.current_size != checkpoint.size:
            raise NotAcceptedError(
                f"the stream no longer has the events after number {growth.current_size}; without"
                " them audit cannot prove that the log only grew since this witness cosigned it"
            )
        since = tuple((count, b64encode(node).decode()) for count, node in growth.added_trees)
        grown = WitnessState(state.stream, state.size, state.edge, since, to, state.contradicted)
        return await self._save(recipient, grown)

    async def _post_checkpoint(
        self, witness: Witness, state: WitnessState, checkpoint: Log
    ) -> HttpResponse:
        headers = {"content-type": "text/plain; charset=utf-8", "user-agent": "toolbus"}
        body = add_checkpoint_body(state.size, state.growth.proof(), checkpoint.note)
        named, url = self._is_operator_named(witness), f"{witness.url}/add-checkpoint"
        request = HttpRequest(
            "POST", url, body, headers, operator_named=named, max_bytes=LARGEST_RESPONSE, cut=True
        )
        try:
            async with self._pending.slots:
                return await self._http.send(request)
        except HttpError as error:
            raise NotAcceptedError(str(error)) from error

    async def _accept(
        self,
        witness: Witness,
        recipient: Recipient,
        checkpoint: Log,
        state: WitnessState,
        body: bytes,
    ) -> None:
        """Publish the cosigned checkpoint and store the new state."""
        lines = cosignatures(body, checkpoint.note, cosigner_of(witness.key))
        if not lines:
            raise NotAcceptedError("its cosignature does not match the key configured for it")
        note = checkpoint.note + "".join(f"{each}\n" for each in lines)
        cosigned = msgspec.structs.replace(checkpoint, note=note)
        await self._sources.publish_cosigned([(recipient[1], cosigned)], witness.name)
        await self._save(
            recipient,
            WitnessState(state.stream, checkpoint.size, checkpoint.edge, (), checkpoint.to),
        )

    async def _resolve_rejection(
        self, recipient: Recipient, checkpoint: Log, state: WitnessState, response: HttpResponse
    ) -> WitnessState:
        """Return the state that the witness reports instead. Raises `NotAcceptedError`."""
        known = conflicting_size(response.body) if response.status == _CONFLICT else None
        if response.status == _NO_PROOF or known == state.size == checkpoint.size:
            reason = "its tree differs"
            await self._raise_alarm(recipient, checkpoint, state, state.size, reason)
        if known is not None and known > checkpoint.size:
            await self._raise_alarm(recipient, checkpoint, state, known, "it cosigned more events")
        if known == 0:
            return WitnessState(checkpoint.stream)
        if known is not None:
            return await self._state_of_size(recipient, checkpoint, state, known)
        origin = checkpoint.note.partition("\n")[0]
        raise NotAcceptedError(
            {
                _UNKNOWN: f"it does not know the log {origin}; ask its operator to add it",
                _FORBIDDEN: f"it has another key for the log {origin}; send its operator the key",
            }.get(response.status, f"it returned status {response.status}")
        )

    async def _state_of_size(
        self, recipient: Recipient, checkpoint: Log, state: WitnessState, known: int
    ) -> WitnessState:
        """Return the state at audit's checkpoint with the size that the witness knows."""
        found = await self._sources.store.select(
            f"SELECT edge, to FROM checkpoints WHERE customer = {quoted(recipient[1])}"  # noqa: S608
            f" AND stream = {quoted(checkpoint.stream)} AND size = {known} LIMIT 1"
        )
        if known == checkpoint.size:
            found = [(checkpoint.edge, checkpoint.to)]
        if not found:
            await self._raise_alarm(
                recipient, checkpoint, state, known, "audit never signed that size"
            )
        ((edge, to),) = found
        return WitnessState(
            checkpoint.stream, known, tuple(map(str, edge)), (), int(to), state.contradicted
        )

    async def _raise_alarm(
        self, recipient: Recipient, checkpoint: Log, state: WitnessState, known: int, reason: str
    ) -> None:
        """Publish an alarm, once per size. Always raises `NotAcceptedError`."""
        name, customer = recipient
        await self._require_latest(recipient, checkpoint)
        detail = (
            f"the witness has {known} events of this log, audit has {checkpoint.size}: {reason}"
        )
        log.error("witness.contradicted", extra={"witness": name, "reason": detail})
        if state.contradicted != known:
            found = WitnessContradicted(
                id=f"{token_hex(10)}.contradicted",
                at=time(),
                customer=customer,
                witness=name,
                origin=checkpoint.note.partition("\n")[0],
                known=known,
                size=checkpoint.size,
                reason=detail,
            )
            await self._sources.publish(found)
            state.contradicted = known
            await self._save(recipient, state)
        page = "docs/explanation/evidence.md, 'Distribution of checkpoints'"
        raise NotAcceptedError(f"CONTRADICTION: {detail}; see {page}")

    async def _require_latest(self, recipient: Recipient, checkpoint: Log) -> None:
        """Raise `NotAcceptedError` if another replica has stored a newer checkpoint."""
        stored = await self._sources.bucket.get(LOGS + recipient[1])
        if stored is not None and stored.value:
            found = msgspec.json.decode(stored.value, type=Log)
            if (found.stream, found.size) != (checkpoint.stream, checkpoint.size):
                self._witness_states.pop(recipient, None)
                raise NotAcceptedError("a newer checkpoint exists")


def _entry(recipient: Recipient) -> str:
    return f"{STATE_PREFIX}{recipient[0]}.{recipient[1]}"
