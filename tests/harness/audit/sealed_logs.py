"""Sealed logs from the real writer, tree and signer, as test data for verifiers."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from harness.audit.events import allowed, completed
from harness.audit.people_bucket import MemoryBucket, people
from toolbus_audit.transparency_log.checkpoint import Checkpoint, Signer, load_signer
from toolbus_audit.transparency_log.merkle_tree import EMPTY, MerkleTree
from toolbus_common.evidence import bundle, verify
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.nats.connection import Envelope
from toolbus_common.privacy.key_store import PersonKeys

BEGAN = 1_800_000_000
STREAM = "1763000000000"


@dataclass(frozen=True)
class SealedLog:
    """The lines of a log, their checkpoints, and the signing keys."""

    directory: Path
    signer: Signer
    lines: list[bytes]
    sealed: list[bundle.StoredCheckpoint] = field(default_factory=list)
    start: bundle.StoredCheckpoint | None = None
    people: PersonKeys | None = None
    stream: str = STREAM
    customer: str = "acme"

    async def written(self, *, reveal: bool = False) -> Path:
        """Write the log as a bundle, and return the bundle's path.

        `people` adds the encrypted data of these persons.
        """
        path = self.directory / "bundle.zip"

        async def events() -> AsyncIterator[str]:
            for line in self.lines:
                yield line.decode()

        await bundle.write(
            path,
            customer=self.customer,
            stream=self.stream,
            start=self.start,
            checkpoints=self.sealed,
            events=events(),
            opened=self.people.opened if reveal and self.people is not None else None,
        )
        return path

    def verified(self, seen: str = "", *, reveal: bool = False) -> verify.Report:
        """Return the verifier's report."""
        path = asyncio.run(self.written(reveal=reveal))
        return verify.verify(str(path), self.signer.verifier, seen)

    def kinds(self, seen: str = "") -> set[str]:
        """Return the kinds of the verifier's findings."""
        return {kind for kind, _ in self.verified(seen).found}

    def resealed(self, sizes: Collection[int], by: Signer | None = None) -> "SealedLog":
        """Return the same lines with new checkpoints at these sizes."""
        key = by or self.signer
        return replace(self, sealed=sealed(self.lines, sizes, key, self.stream, self.customer))


def sealed_log(
    directory: Path, calls: int = 12, user: str = "", customer: str = "acme", key: str = "key.pem"
) -> SealedLog:
    """Return a log of `calls` calls with the events of two producers.

    Every sixth event is followed by a checkpoint.
    """
    known = people(directory, MemoryBucket()) if user else None
    lines = asyncio.run(_lines(directory, calls, user, known, customer))
    by = load_signer("toolbus", directory / key)
    sizes = {*range(6, len(lines), 6), len(lines)}
    made = sealed(lines, sizes, by, customer=customer)
    return SealedLog(directory, by, lines, made, people=known, customer=customer)


async def _lines(
    directory: Path, calls: int, user: str, known: PersonKeys | None, customer: str
) -> list[bytes]:
    """Return the intents of one service and the outcomes of another service, as published."""
    messages: list[bytes] = []

    async def publish(envelope: Envelope) -> None:
        messages.extend(envelope.payload.split(b"\n"))

    policy, executor = (
        EventPublisher(publish, Outbox(directory / f"{name}.events", 1 << 20))
        for name in ("policy", "executor")
    )
    policy.people = known
    for number in range(calls):
        call, at = f"c{number}", BEGAN + float(number)
        fields = {"user": user, "arguments": '{"q": 1}'} if user else {}
        fields["customer"] = customer
        await policy.publish_durable(allowed(call_id=call, at=at, deadline=at + 30, **fields))
        await executor.publish_durable(completed(call_id=call, at=at + 0.5, customer=customer))
    return messages


def sealed(
    lines: Sequence[bytes],
    sizes: Collection[int],
    by: Signer,
    stream: str = STREAM,
    customer: str = "acme",
) -> list[bundle.StoredCheckpoint]:
    """Return a checkpoint for each size."""
    origin = f"{by.name}/{quote(customer, safe='')}/{stream}"
    tree, found, before = MerkleTree(), [], (0, EMPTY)
    for number, line in enumerate(lines, 1):
        tree.append(line)
        if number in sizes:
            at = BEGAN + 10_000 + number
            checkpoint = Checkpoint(origin, number, tree.root, at, *before)
            edge = tuple(map(_base64, tree.right_edge))
            found.append(bundle.StoredCheckpoint(number, number, edge, by.sign(checkpoint)))
            before = number, tree.root
    return found


def seen(of: bundle.StoredCheckpoint) -> str:
    """Return a checkpoint in the form in which an auditor stores it."""
    return json.dumps({"note": of.note}) + "\n"


def _base64(node: bytes) -> str:
    return b64encode(node).decode()
