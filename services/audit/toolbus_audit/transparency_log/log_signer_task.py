"""Run the log signer as part of the service, and pass its checkpoints to all receivers."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.delivery.outbound import Outbound
from toolbus_audit.events_file.store import EventsFile
from toolbus_audit.ingest.writer import Writer
from toolbus_audit.settings import Settings
from toolbus_audit.transparency_log.checkpoint import Signer, load_signer
from toolbus_audit.transparency_log.checkpoint_files import CheckpointFiles
from toolbus_audit.transparency_log.log_origin import origin_of_installation
from toolbus_audit.transparency_log.log_signer import Log, LogSigner
from toolbus_audit.transparency_log.publisher import CheckpointPublisher
from toolbus_audit.transparency_log.webhook_notifier import WebhookNotifier
from toolbus_audit.transparency_log.witness_client import Sources, WitnessClient
from toolbus_common.concurrency import in_background
from toolbus_common.config import Configuration
from toolbus_common.contracts.events.base import EVERY_EVENT, subject_of
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.stream_reader import StreamEntry, created_at, read_from
from toolbus_common.nats.topology import CONFIG, CONFIGURATION, EVENTS, SEALS
from toolbus_common.service.service import Service

log = logging.getLogger(__name__)


class Receivers:
    """Receivers of checkpoints: the store, local files, webhooks, a file target, witnesses."""

    def __init__(
        self,
        service: Service,
        store: ClickHouse | EventsFile,
        settings: Settings,
        outbound: Outbound,
    ) -> None:
        self._service = service
        self._store = store
        self._publisher = CheckpointPublisher(store, settings.state_dir / "evidence")
        self._outbound = outbound
        self._files = CheckpointFiles(
            lambda: outbound.configuration.evidence.checkpoints,
            outbound.http,
            outbound.operator_named.has,
            outbound.secrets,
        )
        self._notifier: WebhookNotifier | None = None
        self._witnesses: WitnessClient | None = None

    def open(self, bucket: Bucket) -> None:
        """Create the receivers whose progress is stored in the bucket."""
        outbound = self._outbound
        self._notifier = WebhookNotifier(
            lambda: outbound.configuration.webhooks,
            outbound.webhooks.post,
            outbound.secrets,
            bucket,
        )
        sources = Sources(
            bucket, self._read, self._store, self._cosigned, self._service.events.publish_durable
        )
        self._witnesses = WitnessClient(
            lambda: outbound.configuration.evidence.witnesses,
            outbound.http,
            outbound.operator_named.has,
            sources,
        )

    async def publish(self, signed: list[tuple[str, Log]]) -> None:
        """Pass new checkpoints to every receiver."""
        for each in (self._notifier, self._files, self._witnesses):
            if each is not None:
                each.offer(signed)
        await self._publisher.publish(signed)

    async def close(self) -> None:
        """Stop deliveries."""
        for each in (self._notifier, self._files, self._witnesses):
            if each is not None:
                await each.close()

    def states(self) -> dict[str, Any]:
        """Return the status of configured receivers, for `toolbus status`."""
        witnesses = self._witnesses.states() if self._witnesses else {}
        found = {"witnesses": witnesses, "checkpoints": self._files.states()}
        return {name: states for name, states in found.items() if states}

    async def _cosigned(self, signed: list[tuple[str, Log]], witness: str) -> None:
        self._files.offer(signed)
        await self._publisher.publish(signed, witness)

    async def _read(self, first: int, customer: str) -> list[StreamEntry]:
        subjects = subject_of("*.*", customer)
        return await read_from(self._service.bus.client, EVENTS, first, subjects)


def run_log_signer(
    service: Service,
    settings: Settings,
    writer: Writer,
    store: ClickHouse | EventsFile,
    outbound: Outbound,
) -> None:
    """Sign the events of the stream while the service runs, even if the store is down."""
    signer = load_signer("toolbus", settings.signing_key)  # fails if the file is not a key
    service.shared_keys.add("evidence", signer.private)
    receivers, identity = Receivers(service, store, settings, outbound), dict[str, str]()
    details = service.details
    service.details = lambda: details() | identity | receivers.states()

    async def read(first: int) -> list[StreamEntry]:
        return await read_from(service.bus.client, EVENTS, first, EVERY_EVENT)

    async def stream() -> str:
        writer.stream = await created_at(service.bus.client, EVENTS)
        return writer.stream

    @service.add_resource
    @asynccontextmanager
    async def signing() -> AsyncIterator[None]:
        await stream()
        bucket = await service.bucket(SEALS)
        key = await _load_signer(service, bucket, settings)
        identity.update(signed_by=key.verifier, origin=key.name)
        receivers.open(bucket)
        log_signer = LogSigner(bucket, key, read, receivers.publish, settings.checkpoint_seconds)
        try:
            async with in_background(log_signer.run(stream)):
                yield
        finally:
            await receivers.close()


async def _load_signer(service: Service, bucket: Bucket, settings: Settings) -> Signer:
    """Return the signer, whose key has the name of this installation."""
    stored = await (await service.bucket(CONFIG)).get(CONFIGURATION)
    configured = ""
    if stored is not None and stored.value:
        configured = Configuration.model_validate_json(stored.value).evidence.origin
    wanted = configured or settings.evidence_origin
    name = await origin_of_installation(bucket, wanted)
    if wanted and wanted != name:
        log.warning(
            "checkpoint.origin_unchanged",
            extra={
                "reason": f"logs are signed with the origin '{name}', which cannot change after "
                f"the first start; set evidence.origin to '{name}' instead of '{wanted}'"
            },
        )
    return load_signer(name, settings.signing_key)
