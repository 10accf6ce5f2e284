"""Append the events of the stream to each customer's Merkle tree and sign its checkpoints.

The events are read from the stream, not from the tables. A row that is inserted directly into
ClickHouse is therefore in no log.
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
from toolbus_audit.transparency_log.merkle_tree import EMPTY, MerkleTree
from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.stream_reader import StreamEntry
from toolbus_common.observability.metrics import SEALED_EVENTS, SEALED_UNTIL

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0  # a log without new events is signed again this often, as proof of freshness
MAX_EVENTS_PER_CHECKPOINT = 10_000  # events between two checkpoints of one log
STANDBY_SECONDS = 30.0  # between attempts to take over from the replica that signs
POSITION, LOGS = "position", "log."

Read = Callable[[int], Awaitable[list[StreamEntry]]]


class Log(Struct):
    """Latest checkpoint of a customer's log, as stored in the bucket."""

    stream: str
    to: int = 0  # sequence of the last message in the log
    size: int = 0
    edge: tuple[str, ...] = ()
    at: int = 0
    note: str = ""


# Pairs of a customer and its checkpoint.
Publish = Callable[[list[tuple[str, Log]]], Awaitable[None]]


class _Position(Struct):
    stream: str
    to: int


class OvertakenError(Exception):
    """Another audit replica signs: it stored a checkpoint first."""


class OpenLog:
    """Log in memory: the tree, and its latest checkpoint."""

    def __init__(self, log: Log, revision: int) -> None:
        self.log = log
        self.revision = revision
        self.tree = MerkleTree(log.size, map(b64decode, log.edge))
        self.root = self.tree.root if log.size else EMPTY
        self.to = log.to

    @property
    def unsigned(self) -> int:
        """Number of events since the latest checkpoint."""
        return self.tree.size - self.log.size


class LogSigner:
    """Signer of every customer's log. Only one audit replica signs at a time."""

    def __init__(
        self, bucket: Bucket, signer: Signer, read: Read, publish: Publish, interval: float = 10.0
    ) -> None:
        self._bucket = bucket
        self._signer = signer
        self._read = read
        self._publish = publish
        self._interval = interval  # seconds between two checkpoints
        self._logs: dict[str, OpenLog] = {}
        self._signed: list[tuple[str, Log]] = []
        self._stream = ""
        self._position = self._saved_position = 0
        self._position_revision = 0

    async def run(self, stream: Callable[[], Awaitable[str]]) -> None:
        """Sign forever. `stream` returns the identity of the stream."""
        while True:
            pause = self._interval
            try:
                await self.start(await stream())
                while True:
                    await self.sign_all()
                    await asyncio.sleep(self._interval)
            except OvertakenError:
                pause = STANDBY_SECONDS
            except BusDownError as error:
                log.warning("checkpoint.waiting", extra={"reason": str(error)})
            except Exception:
                log.exception("checkpoint.internal_error")
            await asyncio.sleep(pause)

    async def start(self, stream: str) -> None:
        """Resume from the latest checkpoints.

        Publish them again, because publishing may have failed.
        """
        self._logs = {}
        self._stream, self._position, self._position_revision = stream, 0, 0
        async for change in self._bucket.watch():
            if change is None:
                break
            if change.value is None:
                continue
            if change.key == POSITION:
                self._restore_position(msgspec.json.decode(change.value, type=_Position))
                self._position_revision = change.revision
            elif change.key.startswith(LOGS):
                found = msgspec.json.decode(change.value, type=Log)
                # A re-created stream is another log, with checkpoints from the beginning.
                known = found if found.stream == stream else Log(stream)
                self._logs[change.key.removeprefix(LOGS)] = OpenLog(known, change.revision)
        self._saved_position = self._position
        self._signed = [
            (customer, open_log.log)
            for customer, open_log in self._logs.items()
            if open_log.log.note
        ]

    def _restore_position(self, position: _Position) -> None:
        if position.stream == self._stream:
            self._position = position.to

    async def sign_all(self) -> None:
        """Append all new events.

        Sign every log that grew, and every log that was not signed recently.
        """
        now = time()
        while time() - now < self._interval and (found := await self._read(self._position + 1)):
            for message in found:
                await self._append(message)
        now = time()
        for customer, open_log in self._logs.items():
            if open_log.unsigned or (open_log.log.note and now - open_log.log.at >= IDLE_SECONDS):
                await self._sign_log(customer, open_log)
        await self._save_position()
        signed, self._signed = self._signed, []
        await self._publish(signed)
        SEALED_UNTIL.set(now)

    async def _append(self, message: StreamEntry) -> None:
        self._position = message.sequence
        customer = message.subject.rpartition(".")[2]
        open_log = self._logs.get(customer)
        if open_log is None:
            open_log = self._logs[customer] = OpenLog(Log(self._stream), 0)
        if message.sequence <= open_log.to:
            return  # signed before the position was stored
        lines = message.data.split(b"\n")
        for line in lines:
            open_log.tree.append(line)
        open_log.to = message.sequence
        SEALED_EVENTS.inc(len(lines))
        if open_log.unsigned >= MAX_EVENTS_PER_CHECKPOINT:
            await self._sign_log(customer, open_log)

    async def _sign_log(self, customer: str, open_log: OpenLog) -> None:
        """Sign a checkpoint, and store it before it is published, to prevent contradictions."""
        tree, root, now = open_log.tree, open_log.tree.root, int(time())
        # The origin is unique per log: the customer and the stream contain no slash.
        origin = f"{self._signer.name}/{quote(customer, safe='')}/{self._stream}"
        checkpoint = Checkpoint(origin, tree.size, root, now, open_log.log.size, open_log.root)
        signed = Log(
            stream=self._stream,
            to=open_log.to,
            size=tree.size,
            edge=tuple(b64encode(node).decode() for node in tree.right_edge),
            at=now,
            note=self._signer.sign(checkpoint),
        )
        revision = await self._bucket.swap(
            LOGS + customer, msgspec.json.encode(signed), open_log.revision
        )
        if revision is None:
            raise OvertakenError
        open_log.log, open_log.revision, open_log.root = signed, revision, root
        self._signed.append((customer, signed))

    async def _save_position(self) -> None:
        """Store the position to resume reading at. All earlier messages are in the logs."""
        if self._position == self._saved_position:
            return
        position = msgspec.json.encode(_Position(self._stream, self._position))
        revision = await self._bucket.swap(POSITION, position, self._position_revision)
        if revision is None:
            raise OvertakenError
        self._position_revision, self._saved_position = revision, self._position
