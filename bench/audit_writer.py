"""Processor time of audit for a call: rows in ClickHouse and leaves in the log.

`make bench-audit-writer` makes the two events of each call with the real contracts and the real
publisher, several calls per message as under load, and passes them to the real writer over the
embedded engine and to the Merkle tree of the log. The CPU is that of all threads of the process,
merges of the engine included; NATS is not involved.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections.abc import Awaitable
from hashlib import sha256
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any

from figures import keep, load, met, row, show
from harness.audit.events import allowed, completed
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.ingest.writer import PULL_MESSAGES, Writer
from toolbus_audit.settings import Settings
from toolbus_audit.transparency_log.merkle_tree import MerkleTree
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.nats.connection import Envelope, StoredMessage

MAX_US = 35.0  # per call: `call.allowed` and `call.completed`
TOGETHER = 32  # calls published at the same moment
Pull = list[StoredMessage]


def main() -> int:
    """Run the benchmark; return 0 if the demand holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=40_000, help="calls of a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    before = load()
    with tempfile.TemporaryDirectory(prefix="toolbus-audit-writer-") as name:
        rounds = asyncio.run(_rounds(Path(name), options.calls, options.rounds))
    least = {part: min(each[part] for each in rounds) for part in rounds[0]}
    total = min(sum(each.values()) for each in rounds)
    rows = [row("CPU of audit for a call, µs", total, "<=", MAX_US)]
    rows += [
        {"what": f"of it {part}", "value": us, "demand": "", "met": True}
        for part, us in least.items()
    ]
    show(rows)
    header = {"asked": vars(options), "before": before, "after": load()}
    keep("audit-writer", {**header, "rounds": rounds, "rows": rows})
    return 0 if met(rows) else 1


async def _rounds(directory: Path, calls: int, rounds: int) -> list[dict[str, float]]:
    store = ClickHouse(Settings(state_dir=directory))
    writer, tree, sequence = Writer(store), MerkleTree(), 0
    await writer.open()
    found = []
    try:
        for _ in range(rounds):
            pulls = await _pulls(directory, calls, sequence)
            sequence = pulls[-1][-1].sequence
            before = writer.rows
            rows = await _timed(_write(writer, pulls))
            if writer.rows - before != 2 * calls:
                raise SystemExit(f"{writer.rows - before} rows of {2 * calls} events")
            leaves = await _timed(_seal(tree, pulls))
            found.append({"rows": rows / calls * 1e6, "leaves": leaves / calls * 1e6})
    finally:
        await store.close()
    return found


async def _pulls(directory: Path, calls: int, last: int) -> list[Pull]:
    """Return messages as a busy gateway publishes them, in pulls as audit fetches them."""
    messages: Pull = []

    async def publish(envelope: Envelope) -> None:
        number = last + len(messages) + 1
        messages.append(
            StoredMessage(envelope.subject, envelope.payload, number, 1, 0, _acknowledged())
        )

    publishers = [
        EventPublisher(publish, Outbox(directory / f"{name}.events", 1 << 20))
        for name in ("policy", "executor")
    ]
    for first in range(0, calls, TOGETHER):
        fields = [_fields() for _ in range(min(TOGETHER, calls - first))]
        await asyncio.gather(
            *(
                publishers[0].publish_durable(allowed(arguments_digest=_digest(), **each))
                for each in fields
            )
        )
        await asyncio.gather(
            *(
                publishers[1].publish_durable(
                    completed(result_digest=_digest(), charge=2000, **each)
                )
                for each in fields
            )
        )
    for publisher in publishers:
        await publisher.close(5.0)
    return [messages[at : at + PULL_MESSAGES] for at in range(0, len(messages), PULL_MESSAGES)]


def _fields() -> dict[str, Any]:
    return {"call_id": secrets.token_hex(12), "trace_id": secrets.token_hex(16)}


def _digest() -> str:
    return sha256(secrets.token_bytes(8)).hexdigest()


def _acknowledged() -> Any:
    async def acknowledge(**_: Any) -> None:
        return None

    return SimpleNamespace(ack=acknowledge, ack_sync=acknowledge, nak=acknowledge)


async def _write(writer: Writer, pulls: list[Pull]) -> None:
    for pull in pulls:
        await writer.receive(pull)
    await writer.flush()


async def _seal(tree: MerkleTree, pulls: list[Pull]) -> None:
    for pull in pulls:
        for message in pull:
            for line in message.data.split(b"\n"):
                tree.append(line)


async def _timed(work: Awaitable[None]) -> float:
    began = process_time()
    await work
    return process_time() - began


if __name__ == "__main__":
    sys.exit(main())
