"""The audit service: every event becomes a row, rows answer questions, and webhooks are told.

hears   every event, from the stream EVENTS; the buckets tb_config and tb_person_keys
says    EventsExpired, WitnessContradicted; events and checkpoints to webhooks, events to SIEMs and
        into files, checkpoints to witnesses and into files
answers AuditQuery, EventsQuery, SpendingQuery, OpenCallsQuery, UnresolvedCallsQuery,
        BackfillRequest, BackfillLinesRequest; readers, over HTTP
owns    the tables in ClickHouse, the buckets tb_checkpoints and tb_exports, the sealing key
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from toolbus_audit.bi_gateway.executor import Answering
from toolbus_audit.bi_gateway.server import listening
from toolbus_audit.clickhouse import query
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.delivery.http_client import Poster
from toolbus_audit.export import pages
from toolbus_audit.export.scheduler import Exports
from toolbus_audit.ingest.backfill import Refilling
from toolbus_audit.ingest.rollups import keep_adding_up
from toolbus_audit.ingest.writer import MESSAGES, Writer
from toolbus_audit.projections import spending, unresolved_calls
from toolbus_audit.retention import Retention
from toolbus_audit.settings import Settings
from toolbus_audit.siem.forwarder import Stream
from toolbus_audit.siem.registry import Pace, Sinks
from toolbus_audit.transparency_log.sealer_task import Outside, sealing
from toolbus_audit.webhooks.dispatcher import Webhooks
from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.concurrency import end
from toolbus_common.config import Webhook
from toolbus_common.config_store.literal_secrets import Reader
from toolbus_common.config_store.operator_targets import Named
from toolbus_common.contracts import (
    AuditQuery,
    BackfillLinesRequest,
    BackfillReply,
    BackfillRequest,
    EventsQuery,
    EventsReply,
    OpenCallsQuery,
    OpenCallsReply,
    RowsReply,
    SpendingQuery,
    SpendingReply,
    UnresolvedCallsQuery,
    UnresolvedCallsReply,
)
from toolbus_common.contracts.events.base import EVERY_EVENT
from toolbus_common.egress.tls import Tls
from toolbus_common.messaging.access_rejections import RejectionCounter
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.connection import StoredMessage
from toolbus_common.nats.stream_reader import StreamEntry, begun, read_from
from toolbus_common.nats.topology import CONFIG, EVENTS, EXPORTS, WEBHOOKS
from toolbus_common.observability.tracing import Tracer
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.legal_holds import Holds
from toolbus_common.secrets import Secrets, stores_of
from toolbus_common.service.privacy import know_people
from toolbus_common.service.service import Service

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
MOST_POSTED = 100  # messages of one pull
POLL_SECONDS = 5.0
_tracer = Tracer("audit")


def build(exchange: LocalTransport, settings: Settings | None = None) -> Service:
    """Wire the service. Nothing connects until it runs."""
    settings = settings or Settings()
    service = Service("audit", settings, exchange)
    people = know_people(service)
    store = ClickHouse(settings)
    writer = Writer(store)
    service.wait_until_ready(writer.open)
    service.bus.on_lost.append(writer.doubt)
    service.why_not = lambda: writer.reason
    service.details = lambda: {
        "store": store.place,
        "rows": writer.rows,
        "dead": writer.dead,
        **({"people": people.fault} if people.fault else {}),
    }

    _keep(service, writer, store)
    directory, named, poster = _declared(service, settings)
    secrets = Secrets(stores_of(os.environ), fresh=settings.secret_seconds)
    hooks = _webhooks(directory)
    _refill(service, writer, store)
    _tell_webhooks(service, Webhooks(hooks, poster.post, secrets, reveal=people.reveal))
    sealing(service, settings, writer, store, Outside(directory, named, poster, secrets))
    _expire(service, store, directory)
    _export(service, settings, store)
    _serve_analysts(service, settings, store, directory)

    @service.consume_events(most=MESSAGES, seconds=1.0, pause=0.5)
    async def write(messages: list[StoredMessage]) -> None:
        with _tracer.linked("toolbus.insert", (each.spans for each in messages)):
            await writer.hear(messages)

    _answer(service, store, people)
    return service


def _answer(service: Service, store: ClickHouse, people: PersonKeys) -> None:
    """Answer what is asked of the rows."""

    @service.answer_query(AuditQuery)
    async def answer(question: AuditQuery) -> RowsReply:
        return await query.answer(store, people, question)

    @service.answer_query(SpendingQuery)
    async def spent(question: SpendingQuery) -> SpendingReply:
        return await spending.spending(store, people, question)

    @service.answer_query(OpenCallsQuery)
    async def still_open(question: OpenCallsQuery) -> OpenCallsReply:
        return await spending.open_calls(store, people, question)

    @service.answer_query(UnresolvedCallsQuery)
    async def never_ended(question: UnresolvedCallsQuery) -> UnresolvedCallsReply:
        return await unresolved_calls.unended(store, question)


def _keep(service: Service, writer: Writer, store: ClickHouse) -> None:
    """Write what was heard before the store is closed."""

    @service.add_resource
    @asynccontextmanager
    async def kept() -> AsyncIterator[None]:
        try:
            yield
            await writer.close(CLOSE_SECONDS)
        finally:
            await store.close()


def _declared(service: Service, settings: Settings) -> tuple[ConfigProjection, Named, Poster]:
    """What is declared, what of it the operator named, and what posts there."""
    directory = ConfigProjection(Reader.at("audit", settings.sealing).opened)
    named = Named()
    service.watch_bucket(CONFIG)(named.hear)
    service.watch_bucket(CONFIG)(directory.hear)
    return directory, named, Poster(settings.egress, named.has, Tls(settings.egress_ca))


def _webhooks(directory: ConfigProjection) -> Callable[[], Mapping[str, Webhook]]:
    return lambda: directory.now.declaration.webhooks


def _expire(service: Service, store: ClickHouse, directory: ConfigProjection) -> None:
    """Delete what is past its time, unless it is held."""
    holds = Holds()
    service.watch_bucket(CONFIG)(holds.hear)
    retention = Retention(
        store,
        lambda: directory.now.declaration,
        lambda: holds.customers,
        service.events.publish_durable,
    )

    @service.add_resource
    @asynccontextmanager
    async def expiring() -> AsyncIterator[None]:
        # What changed while the bus was away is not known here: nothing is deleted then.
        running = asyncio.create_task(retention.run(lambda: service.status().ready))
        try:
            yield
        finally:
            await end(running)


def _serve_analysts(
    service: Service, settings: Settings, store: ClickHouse, directory: ConfigProjection
) -> None:
    """Keep what they ask most added up, and answer those who are declared."""
    _add_up(service, store)
    if settings.audit_http_port:
        _answer_readers(service, settings, store, directory)


def _add_up(service: Service, store: ClickHouse) -> None:
    """Add up hours and days that are over, beside everything else."""

    @service.add_resource
    @asynccontextmanager
    async def added_up() -> AsyncIterator[None]:
        adding = asyncio.create_task(keep_adding_up(store.beside))
        try:
            yield
        finally:
            await end(adding)


def _answer_readers(
    service: Service, settings: Settings, store: ClickHouse, directory: ConfigProjection
) -> None:
    """Answer declared readers in SQL over HTTP."""
    if not store.embedded:
        log.warning(
            "audit.no_readers",
            extra={"reason": "with TOOLBUS_CLICKHOUSE_URL readers ask that server itself"},
        )
        return

    rejections = RejectionCounter(service.events.publish, settings.rejection_seconds)
    service.add_resource(rejections.publisher.running)
    service.draining.append(rejections.publisher.flush)

    @service.add_resource
    @asynccontextmanager
    async def read() -> AsyncIterator[None]:
        answering = Answering(
            store, lambda: directory.now.declaration.readers, settings.audit_query_seconds
        )
        try:
            async with listening(
                answering.answer,
                rejections.note,
                settings.audit_http_host,
                settings.audit_http_port,
            ):
                yield
        finally:
            await asyncio.to_thread(answering.close)


def _refill(service: Service, writer: Writer, store: ClickHouse) -> None:
    """Write what the tables lack, when an operator asks for it."""

    async def read(first: int | datetime, most: int) -> list[StreamEntry]:
        return await read_from(service.bus.client, EVENTS, first, EVERY_EVENT, most)

    async def settled() -> int:
        newest = await service.bus.newest(EVENTS)  # first: more may come while we ask
        return int(min(newest, await service.bus.finished(EVENTS, service.name)))

    refilling = Refilling(store, read, settled, lambda: writer.stream)

    @service.answer_query(BackfillRequest)
    async def refill(question: BackfillRequest) -> BackfillReply:
        told = await refilling.answer(question)
        await writer.count_dead()
        return told

    @service.answer_query(BackfillLinesRequest)
    async def take(question: BackfillLinesRequest) -> BackfillReply:
        return await refilling.take(question.lines)


def _tell_webhooks(service: Service, webhooks: Webhooks) -> None:
    """Tell them beside everything else, whether or not the store is there."""

    @service.add_resource
    @asynccontextmanager
    async def told() -> AsyncIterator[None]:
        batches = service.bus.consume(EVENTS, WEBHOOKS, MOST_POSTED, POLL_SECONDS)
        telling = asyncio.create_task(webhooks.run(batches))
        try:
            yield
        finally:
            await end(telling)
            await webhooks.close()


def _export(service: Service, settings: Settings, store: ClickHouse) -> None:
    """Answer who takes events out, write declared exports, and tell declared sinks."""
    directory = ConfigProjection(Reader.at("audit", settings.sealing).opened)
    named = Named()
    service.watch_bucket(CONFIG)(named.hear)
    service.watch_bucket(CONFIG)(directory.hear)
    poster = Poster(settings.egress, named.has, Tls(settings.egress_ca))
    secrets = Secrets(stores_of(os.environ), fresh=settings.secret_seconds)
    given, lease = (poster, named.has, secrets, service.events.producer), settings.lease_seconds
    exports = Exports(lambda: directory.now.declaration.exports, *given, lease)
    sinks = Sinks(lambda: directory.now.declaration.sinks, *given, Pace(lease))
    details = service.details
    service.details = lambda: details() | _stated(exports=exports.states(), sinks=sinks.states())

    async def stream() -> str:
        return await begun(service.bus.client, EVENTS)

    async def newest() -> int:
        return await service.bus.newest(EVENTS)

    async def read(first: int, most: int) -> list[StreamEntry]:
        return await read_from(service.bus.client, EVENTS, first, EVERY_EVENT, most)

    @service.answer_query(EventsQuery)
    async def page(question: EventsQuery) -> EventsReply:
        return await pages.page(store, question)

    async def closed() -> tuple[str, int]:
        known = await newest()  # before: what comes meanwhile is not closed
        return await stream(), int(min(known, await service.bus.finished(EVENTS, service.name)))

    @service.add_resource
    @asynccontextmanager
    async def exported() -> AsyncIterator[None]:
        bucket = await service.bucket(EXPORTS)
        async with (
            exports.exporting(bucket, store, closed),
            sinks.telling(bucket, Stream(stream, newest, read)),
        ):
            yield


def _stated(**told: dict[str, str]) -> dict[str, dict[str, str]]:
    """What is declared at all."""
    return {name: states for name, states in told.items() if states}
