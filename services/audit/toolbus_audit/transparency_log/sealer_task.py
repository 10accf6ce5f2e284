"""Runs the sealer beside everything else, and hands its checkpoints to all who are to have them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.delivery.http_client import Poster
from toolbus_audit.ingest.writer import Writer
from toolbus_audit.settings import Settings
from toolbus_audit.transparency_log.announcer import Announcing
from toolbus_audit.transparency_log.checkpoint import Signer, signer
from toolbus_audit.transparency_log.checkpoint_copies import Copying
from toolbus_audit.transparency_log.log_origin import settled
from toolbus_audit.transparency_log.publisher import Publishing
from toolbus_audit.transparency_log.sealer import Log, Sealer
from toolbus_audit.transparency_log.witness_client import Sources, Witnessing
from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.concurrency import end
from toolbus_common.config import Configuration, Evidence
from toolbus_common.config_store.operator_targets import ConfirmedTargets
from toolbus_common.contracts.events.base import EVERY_EVENT, subject_of
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.stream_reader import StreamEntry, created_at, read_from
from toolbus_common.nats.topology import CONFIG, DECLARATION, EVENTS, SEALS
from toolbus_common.secrets import Secrets
from toolbus_common.service.service import Service

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """Who is outside, as it is declared, and what reaches them."""

    directory: ConfigProjection
    named: ConfirmedTargets
    poster: Poster
    secrets: Secrets

    @property
    def evidence(self) -> Evidence:
        """What is declared of evidence now."""
        return self.directory.now.declaration.evidence


class Receivers:
    """All who are handed checkpoints: rows and files of ours, webhooks, a place, witnesses."""

    def __init__(
        self, service: Service, store: ClickHouse, settings: Settings, to: Outside
    ) -> None:
        self._service = service
        self._store = store
        self._publishing = Publishing(store, settings.sealing_key.parent)
        self._to = to
        self._copying = Copying(
            lambda: to.evidence.checkpoints, to.poster, to.named.has, to.secrets
        )
        self._announcing: Announcing | None = None
        self._witnessing: Witnessing | None = None

    def open(self, bucket: Bucket) -> None:
        """Begin with what the bucket says they were told."""
        to = self._to
        self._announcing = Announcing(
            lambda: to.directory.now.declaration.webhooks, to.poster.post, to.secrets, bucket
        )
        sources = Sources(
            bucket, self._read, self._store, self._cosigned, self._service.events.publish_durable
        )
        self._witnessing = Witnessing(
            lambda: to.evidence.witnesses, to.poster, to.named.has, sources
        )

    async def tell(self, signed: list[tuple[str, Log]]) -> None:
        """Hand out what was just signed."""
        for each in (self._announcing, self._copying, self._witnessing):
            if each is not None:
                each.tell(signed)
        await self._publishing.tell(signed)

    async def close(self) -> None:
        """Stop handing out."""
        for each in (self._announcing, self._copying, self._witnessing):
            if each is not None:
                await each.close()

    def states(self) -> dict[str, Any]:
        """For `toolbus status`; what is not declared is not told."""
        witnesses = self._witnessing.states() if self._witnessing else {}
        told = {"witnesses": witnesses, "checkpoints": self._copying.states()}
        return {name: states for name, states in told.items() if states}

    async def _cosigned(self, signed: list[tuple[str, Log]], witness: str) -> None:
        self._copying.tell(signed)
        await self._publishing.tell(signed, witness)

    async def _read(self, first: int, customer: str) -> list[StreamEntry]:
        subjects = subject_of("*.*", customer)
        return await read_from(self._service.bus.client, EVENTS, first, subjects)


def sealing(
    service: Service, settings: Settings, writer: Writer, store: ClickHouse, outside: Outside
) -> None:
    """Sign what the stream keeps, whether or not the store is there."""
    signer("toolbus", settings.sealing_key)  # a file that holds no key is refused at once
    receivers, told = Receivers(service, store, settings, outside), dict[str, str]()
    details = service.details
    service.details = lambda: details() | told | receivers.states()

    async def read(first: int) -> list[StreamEntry]:
        return await read_from(service.bus.client, EVENTS, first, EVERY_EVENT)

    async def stream() -> str:
        writer.stream = await created_at(service.bus.client, EVENTS)
        return writer.stream

    @service.add_resource
    @asynccontextmanager
    async def sealed() -> AsyncIterator[None]:
        await stream()
        bucket = await service.bucket(SEALS)
        signing = await _signing(service, bucket, settings)
        told.update(sealed_by=signing.verifier, origin=signing.name)
        receivers.open(bucket)
        sealer = Sealer(bucket, signing, read, receivers.tell, settings.seal_seconds)
        running = asyncio.create_task(sealer.run(stream))
        try:
            yield
        finally:
            await end(running)
            await receivers.close()


async def _signing(service: Service, bucket: Bucket, settings: Settings) -> Signer:
    """The signer under the name of this installation, which is its key's name too."""
    kept = await (await service.bucket(CONFIG)).get(DECLARATION)
    declared = ""
    if kept is not None and kept.value:
        declared = Configuration.model_validate_json(kept.value).evidence.origin
    wanted = declared or settings.seal_name
    name = await settled(bucket, wanted)
    if wanted and wanted != name:
        log.warning(
            "seal.origin_kept",
            extra={
                "reason": f"logs are signed as {name} since audit first started, and stay so; "
                f"declare evidence.origin: {name} in place of {wanted}"
            },
        )
    return signer(name, settings.sealing_key)
