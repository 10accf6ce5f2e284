"""Seals what the stream keeps: grows every customer's tree in the stream's order, and signs it.

The stream is read, not the tables: what is written beside audit into ClickHouse was never sealed.
"""

import asyncio
import logging
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from time import time
from urllib.parse import quote

import msgspec
from msgspec import Struct

from toolbus_audit.transparency_log.checkpoint import Checkpoint, Signer
from toolbus_audit.transparency_log.merkle_tree import EMPTY, Tree
from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.stream_reader import StreamEntry
from toolbus_common.observability.metrics import SEALED_EVENTS, SEALED_UNTIL

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0  # a log that does not grow is signed anew this often: it still is as it was
MOST_BETWEEN = 10_000  # events between two checkpoints of one log
AWAY_SECONDS = 30.0  # another audit seals; it is looked after this often
POSITION, LOGS = "position", "log."

Read = Callable[[int], Awaitable[list[StreamEntry]]]


class Log(Struct):
    """How far a customer's log has come, as it is kept in the bucket."""

    stream: str
    to: int = 0  # the last message sealed
    size: int = 0
    edge: tuple[str, ...] = ()
    at: int = 0
    note: str = ""


Tell = Callable[[list[tuple[str, Log]]], Awaitable[None]]  # customers and what was signed


class _Position(Struct):
    stream: str
    to: int


class OvertakenError(Exception):
    """Another audit seals: it wrote first."""


class Growing:
    """One log in memory: the tree, and what was last signed of it."""

    def __init__(self, log: Log, revision: int) -> None:
        self.log = log
        self.revision = revision
        self.tree = Tree(log.size, map(b64decode, log.edge))
        self.root = self.tree.root if log.size else EMPTY
        self.to = log.to

    @property
    def grown(self) -> int:
        """Events since the last checkpoint."""
        return self.tree.size - self.log.size


class Sealer:
    """Every customer's log; one audit at a time seals, the others watch over it."""

    def __init__(
        self, bucket: Bucket, signer: Signer, read: Read, tell: Tell, interval: float = 10.0
    ) -> None:
        self._bucket = bucket
        self._signer = signer
        self._read = read
        self._tell = tell
        self._interval = interval  # seconds between two checkpoints
        self._logs: dict[str, Growing] = {}
        self._signed: list[tuple[str, Log]] = []
        self._stream = ""
        self._position = self._written = 0
        self._position_revision = 0

    async def run(self, stream: Callable[[], Awaitable[str]]) -> None:
        """Seal for as long as the service runs; `stream` tells which stream is read."""
        while True:
            pause = self._interval
            try:
                await self.take_up(await stream())
                while True:
                    await self.seal()
                    await asyncio.sleep(self._interval)
            except OvertakenError:
                pause = AWAY_SECONDS
            except BusDownError as error:
                log.warning("seal.waiting", extra={"reason": str(error)})
            except Exception:
                log.exception("seal.failed_inside")
            await asyncio.sleep(pause)

    async def take_up(self, stream: str) -> None:
        """Begin where the last checkpoints ended, and say them again: they may not have been."""
        self._logs = {}
        self._stream, self._position, self._position_revision = stream, 0, 0
        async for change in self._bucket.watch():
            if change is None:
                break
            if change.value is None:
                continue
            if change.key == POSITION:
                self._begin_at(msgspec.json.decode(change.value, type=_Position))
                self._position_revision = change.revision
            elif change.key.startswith(LOGS):
                found = msgspec.json.decode(change.value, type=Log)
                # Events of a stream begun anew are another log's, whose statements begin anew too.
                known = found if found.stream == stream else Log(stream)
                self._logs[change.key.removeprefix(LOGS)] = Growing(known, change.revision)
        self._written = self._position
        self._signed = [
            (customer, growing.log) for customer, growing in self._logs.items() if growing.log.note
        ]

    def _begin_at(self, position: _Position) -> None:
        if position.stream == self._stream:
            self._position = position.to

    async def seal(self) -> None:
        """Take in all there is, and sign every log that grew or was silent for long."""
        now = time()
        while time() - now < self._interval and (kept := await self._read(self._position + 1)):
            for message in kept:
                await self._take(message)
        now = time()
        for customer, growing in self._logs.items():
            if growing.grown or (growing.log.note and now - growing.log.at >= IDLE_SECONDS):
                await self._sign(customer, growing)
        await self._keep_position()
        told, self._signed = self._signed, []
        await self._tell(told)
        SEALED_UNTIL.set(now)

    async def _take(self, message: StreamEntry) -> None:
        self._position = message.sequence
        customer = message.subject.rpartition(".")[2]
        growing = self._logs.get(customer)
        if growing is None:
            growing = self._logs[customer] = Growing(Log(self._stream), 0)
        if message.sequence <= growing.to:
            return  # sealed before the position was written
        lines = message.data.split(b"\n")
        for line in lines:
            growing.tree.append(line)
        growing.to = message.sequence
        SEALED_EVENTS.inc(len(lines))
        if growing.grown >= MOST_BETWEEN:
            await self._sign(customer, growing)

    async def _sign(self, customer: str, growing: Growing) -> None:
        """Sign, keep, and only then tell: what was told is never contradicted."""
        tree, root, now = growing.tree, growing.tree.root, int(time())
        # Each log has one such line and no other: neither part after the first has a slash.
        origin = f"{self._signer.name}/{quote(customer, safe='')}/{self._stream}"
        checkpoint = Checkpoint(origin, tree.size, root, now, growing.log.size, growing.root)
        signed = Log(
            stream=self._stream,
            to=growing.to,
            size=tree.size,
            edge=tuple(b64encode(node).decode() for node in tree.edge),
            at=now,
            note=self._signer.sign(checkpoint),
        )
        revision = await self._bucket.swap(
            LOGS + customer, msgspec.json.encode(signed), growing.revision
        )
        if revision is None:
            raise OvertakenError
        growing.log, growing.revision, growing.root = signed, revision, root
        self._signed.append((customer, signed))

    async def _keep_position(self) -> None:
        """Where to read on after a start; what lies before it is in the logs."""
        if self._position == self._written:
            return
        told = msgspec.json.encode(_Position(self._stream, self._position))
        revision = await self._bucket.swap(POSITION, told, self._position_revision)
        if revision is None:
            raise OvertakenError
        self._position_revision, self._written = revision, self._position
