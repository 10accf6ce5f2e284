"""The audit service: stores events as rows, answers queries, and delivers events to other systems.

subscribes  every event, from the stream EVENTS; buckets tb_config and tb_person_keys;
            AuditQuery, EventsQuery, SpendingQuery, OpenCallsQuery, UnresolvedCallsQuery,
            GuardChecksQuery, BackfillRequest, BackfillLinesRequest, FreezeRequest; SQL of BI
            tools over HTTP
publishes   EventsExpired, WitnessContradicted, AccessRejected; events to SIEMs, files, webhooks and
            plugins (HookRequest, on_event), checkpoints to webhooks, witnesses and files
owns        the tables in ClickHouse, the buckets tb_checkpoints and tb_exports, the signing key
            of the transparency log
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any

from toolbus_audit.bi_gateway.executor import QueryExecutor
from toolbus_audit.bi_gateway.server import serve_readers
from toolbus_audit.clickhouse import query, store_identity
from toolbus_audit.clickhouse.embedded_memory import return_memory_periodically
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.delivery.outbound import Outbound
from toolbus_audit.delivery.webhook_poster import WebhookPoster
from toolbus_audit.events_file.store import EventsFile
from toolbus_audit.export import pages
from toolbus_audit.export.scheduler import ExportScheduler
from toolbus_audit.ingest import moved_file
from toolbus_audit.ingest.backfill import Backfill
from toolbus_audit.ingest.frozen_tables import freeze
from toolbus_audit.ingest.rollups import run_rollups
from toolbus_audit.ingest.stream_use import measure_stream
from toolbus_audit.ingest.writer import PULL_MESSAGES, Writer
from toolbus_audit.projections import guard_checks, spending
from toolbus_audit.projections.clickhouse_calls import ClickHouseCalls
from toolbus_audit.projections.file_calls import FileCalls
from toolbus_audit.retention import Retention
from toolbus_audit.settings import Settings
from toolbus_audit.siem.forwarder import EventStream
from toolbus_audit.siem.forwarders import Timing
from toolbus_audit.siem.plugin_feed import PluginFeeds
from toolbus_audit.siem.registry import SinkRegistry
from toolbus_audit.transparency_log.log_signer_task import run_log_signer
from toolbus_audit.webhooks.dispatcher import WebhookDispatcher
from toolbus_common.access.config_snapshot import ConfigProjection, ConfigView
from toolbus_common.concurrency import in_background
from toolbus_common.config_store.literal_secrets import Reader, keys_at
from toolbus_common.config_store.operator_targets import ConfirmedTargets
from toolbus_common.contracts import (
    AuditQuery,
    BackfillLinesRequest,
    BackfillReply,
    BackfillRequest,
    EventsQuery,
    EventsReply,
    FreezeReply,
    FreezeRequest,
    GuardChecksQuery,
    OpenCallsQuery,
    OpenCallsReply,
    RowsReply,
    SpendingQuery,
    SpendingReply,
    UnresolvedCallsQuery,
    UnresolvedCallsReply,
)
from toolbus_common.contracts.events.base import EVERY_EVENT
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import Tls
from toolbus_common.messaging.access_rejections import RejectionCounter
from toolbus_common.messaging.broker import AckPolicy, EventBatch, stop_subscriber
from toolbus_common.nats.stream_reader import StreamEntry, created_at, read_from, use_of
from toolbus_common.nats.topology import CONFIG, EVENTS, EXPORTS, INSTALLATION, WEBHOOKS
from toolbus_common.observability.tracing import Tracer
from toolbus_common.plugins.requests import PluginRequests
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.legal_holds import Holds
from toolbus_common.privacy.service_keys import use_person_keys
from toolbus_common.secrets import Secrets, stores_of
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import EVENTS_FILE

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
WEBHOOK_MESSAGES = 100  # in one pull
POLL_SECONDS = 5.0
Store = ClickHouse | EventsFile
_tracer = Tracer("audit")


def build(process: ProcessContext, settings: Settings | None = None) -> Service:
    """Compose the service. Nothing connects until it runs."""
    settings = settings or Settings()
    service = Service("audit", settings, process)
    people = use_person_keys(service)
    store = EventsFile(settings) if settings.events_file else ClickHouse(settings)
    writer = Writer(store)
    service.wait_until_ready(writer.open)
    service.bus.on_lost.append(writer.bus_lost)
    service.why_not = lambda: writer.reason
    service.details = lambda: {
        "store": store.location,
        **({"store_id": store.identity} if store.identity else {}),
        "rows": writer.rows,
        "dead_letters": writer.dead,
    }

    _admit_store(service, store)
    _close_store(service, writer, store)
    outbound = _outbound(service, settings)
    _serve_backfill(service, writer, store)
    _dispatch_webhooks(service, outbound, people)
    run_log_signer(service, settings, writer, store, outbound)
    _export(service, settings, store, outbound)
    _run_in_background(service, lambda: measure_stream(lambda: use_of(service.bus.client, EVENTS)))
    if isinstance(store, ClickHouse):
        _work_on_tables(service, settings, store, outbound)

    @service.broker.events(
        "audit", max_messages=PULL_MESSAGES, seconds=1.0, pause=0.5, ack_policy=AckPolicy.MANUAL
    )
    async def write(messages: EventBatch) -> None:
        with _tracer.linked("toolbus.insert", (each.spans for each in messages)):
            await writer.receive(messages)

    _answer_queries(service, store, people)
    return service


def _admit_store(service: Service, store: Store) -> None:
    """Reject any store other than the one store of the installation."""

    async def admit(ids: list[str]) -> None:
        bucket = await service.bucket(INSTALLATION)
        if isinstance(store, EventsFile):
            await store_identity.reject_file(bucket)
        else:
            store.identity = await store_identity.admit(bucket, ids, store.location)

    store.admit = admit


def _close_store(service: Service, writer: Writer, store: Store) -> None:
    """Write the received messages before the store closes."""

    @service.add_resource
    @asynccontextmanager
    async def close_store() -> AsyncIterator[None]:
        try:
            yield
            await writer.close(CLOSE_SECONDS)
        finally:
            await store.close()


def _answer_queries(service: Service, store: Store, people: PersonKeys) -> None:
    """Register the handlers of queries over the stored events."""
    calls = FileCalls(store) if isinstance(store, EventsFile) else ClickHouseCalls(store)

    @service.broker.subscriber(AuditQuery.SUBJECT, queue=service.name)
    async def answer(request: AuditQuery) -> RowsReply:
        return await query.answer(store, people, request)

    @service.broker.subscriber(SpendingQuery.SUBJECT, queue=service.name)
    async def spent(request: SpendingQuery) -> SpendingReply:
        spent = await spending.spending(calls, people, request)
        return spent.model_copy(update={"store": store.identity})

    @service.broker.subscriber(OpenCallsQuery.SUBJECT, queue=service.name)
    async def open_calls(request: OpenCallsQuery) -> OpenCallsReply:
        found = await spending.open_calls(calls, people, request)
        return found.model_copy(update={"store": store.identity})

    @service.broker.subscriber(UnresolvedCallsQuery.SUBJECT, queue=service.name)
    async def unresolved(request: UnresolvedCallsQuery) -> UnresolvedCallsReply:
        return await spending.unresolved_calls(calls, request)

    @service.broker.subscriber(GuardChecksQuery.SUBJECT, queue=service.name)
    async def checked(request: GuardChecksQuery) -> RowsReply:
        return await guard_checks.guard_checks(store, people, request)

    @service.broker.subscriber(EventsQuery.SUBJECT, queue=service.name)
    async def page(request: EventsQuery) -> EventsReply:
        return await pages.page(store, request)


def _outbound(service: Service, settings: Settings) -> Outbound:
    """Watch the configuration, and create the clients of all deliveries."""
    service.shared_keys.add("encryption", *keys_at("audit", settings.encryption))
    decrypted = Reader.at("audit", settings.encryption).opened
    operator_named = service.share_projection(CONFIG, ConfirmedTargets)
    tls = Tls(settings.egress_ca)
    http = HttpClient(CheckedResolver(settings.egress, tls_to_public=True), tls)
    # Webhooks are configured by API callers: slow webhooks must not delay other deliveries.
    webhook_http = HttpClient(CheckedResolver(settings.egress, tls_to_public=True), tls)

    @service.add_resource
    @asynccontextmanager
    async def close_client() -> AsyncIterator[None]:
        try:
            yield
        finally:
            http.close()
            webhook_http.close()

    return Outbound(
        ConfigView(service.share_projection(CONFIG, ConfigProjection), decrypted),
        operator_named,
        http,
        WebhookPoster(webhook_http, operator_named.has),
        Secrets(stores_of(os.environ), fresh=settings.secret_seconds),
    )


def _apply_retention(service: Service, store: ClickHouse, outbound: Outbound) -> None:
    """Delete expired events, except the events of customers under a legal hold."""
    holds = Holds()
    service.watch_bucket(CONFIG)(holds.apply_change)
    retention = Retention(
        store,
        lambda: outbound.configuration,
        lambda: holds.customers,
        service.events.publish_durable,
    )

    @service.add_resource
    @asynccontextmanager
    async def apply_retention() -> AsyncIterator[None]:
        # While the bus is down, changes of the configuration are unknown: nothing is deleted then.
        async with in_background(retention.run(lambda: service.status().ready)):
            yield


def _work_on_tables(
    service: Service, settings: Settings, store: ClickHouse, outbound: Outbound
) -> None:
    """Compose what only ClickHouse has: retention, roll-ups, readers, and the move of a file."""
    _apply_retention(service, store, outbound)
    _run_in_background(service, lambda: run_rollups(store.run_in_background))
    file = settings.state_dir / EVENTS_FILE
    _run_in_background(
        service,
        lambda: moved_file.move(
            file,
            store,
            partial(created_at, service.bus.client, EVENTS),
            partial(service.bus.finished, EVENTS, service.name),
        ),
    )
    if store.embedded:
        _run_in_background(service, return_memory_periodically)
    if settings.audit_http_port:
        _serve_bi_gateway(service, settings, store, outbound)


def _run_in_background(service: Service, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run work while the service runs."""

    @service.add_resource
    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        async with in_background(start()):
            yield


def _serve_bi_gateway(
    service: Service, settings: Settings, store: ClickHouse, outbound: Outbound
) -> None:
    """Serve SQL queries of configured readers over HTTP."""
    if not store.embedded:
        log.warning(
            "audit.no_readers",
            extra={"reason": "with TOOLBUS_CLICKHOUSE_URL, readers query that server directly"},
        )
        return

    rejections = RejectionCounter(service.events.publish, settings.rejection_seconds)
    service.add_resource(rejections.publisher.running)
    service.draining.append(rejections.publisher.flush)

    @service.add_resource
    @asynccontextmanager
    async def serve() -> AsyncIterator[None]:
        executor = QueryExecutor(
            store, lambda: outbound.configuration.readers, settings.audit_query_seconds
        )
        try:
            async with serve_readers(
                executor.execute,
                rejections.note,
                settings.audit_http_host,
                settings.audit_http_port,
            ):
                yield
        finally:
            await asyncio.to_thread(executor.close)


def _serve_backfill(service: Service, writer: Writer, store: Store) -> None:
    """Register the handlers of operators' backfill requests."""

    async def read(first: int | datetime, maximum: int) -> list[StreamEntry]:
        return await read_from(service.bus.client, EVENTS, first, EVERY_EVENT, maximum)

    backfill = Backfill(store, read, partial(_settled, service), lambda: writer.stream)

    @service.broker.subscriber(BackfillRequest.SUBJECT, queue=service.name)
    async def from_stream(request: BackfillRequest) -> BackfillReply:
        reply = await backfill.from_stream(request)
        await writer.count_dead()
        return reply

    @service.broker.subscriber(BackfillLinesRequest.SUBJECT, queue=service.name)
    async def from_export(request: BackfillLinesRequest) -> BackfillReply:
        return await backfill.from_export(request.lines)

    @service.broker.subscriber(FreezeRequest.SUBJECT, queue=service.name)
    async def freeze_tables(request: FreezeRequest) -> FreezeReply:
        return await freeze(store, request)


async def _settled(service: Service) -> int:
    """Return the highest sequence number up to which audit has acknowledged every message."""
    # `newest` is read first, because messages may arrive in the meantime.
    newest = await service.bus.newest(EVENTS)
    return int(min(newest, await service.bus.finished(EVENTS, service.name)))


def _dispatch_webhooks(service: Service, outbound: Outbound, people: PersonKeys) -> None:
    """Compose the delivery of events to webhooks, which is independent of the store."""
    webhooks = WebhookDispatcher(
        lambda: outbound.configuration.webhooks,
        outbound.webhooks.post,
        outbound.secrets,
        reveal=people.reveal,
    )

    deliveries = service.broker.events(
        WEBHOOKS, max_messages=WEBHOOK_MESSAGES, seconds=POLL_SECONDS, ack_policy=AckPolicy.MANUAL
    )
    deliveries(webhooks.receive)

    @service.add_resource
    @asynccontextmanager
    async def dispatch() -> AsyncIterator[None]:
        await deliveries.start()  # even if the store is not open
        try:
            yield
        finally:
            await stop_subscriber(deliveries)
            await webhooks.close()


def _export(service: Service, settings: Settings, store: Store, outbound: Outbound) -> None:
    """Write configured exports, and forward events to configured sinks."""
    holder = service.events.producer
    given = (outbound.http, outbound.operator_named.has, outbound.secrets, holder)
    timing = Timing(settings.lease_seconds)
    exports = ExportScheduler(lambda: outbound.configuration.exports, *given, timing.lease)
    sinks = SinkRegistry(lambda: outbound.configuration.sinks, *given, timing)
    requests = PluginRequests(service.bus, lambda: outbound.configuration.plugins)
    feeds = PluginFeeds(requests, holder, timing)
    details = service.details

    def details_with_deliveries() -> dict[str, Any]:
        states = {"exports": exports.states(), "sinks": sinks.states()}
        return details() | {name: each for name, each in states.items() if each} | feeds.details()

    service.details = details_with_deliveries

    async def stream() -> str:
        return await created_at(service.bus.client, EVENTS)

    async def read(first: int, maximum: int) -> list[StreamEntry]:
        return await read_from(service.bus.client, EVENTS, first, EVERY_EVENT, maximum)

    async def closed() -> tuple[str, int]:
        # Messages that arrive meanwhile are not in a closed window.
        return await stream(), await _settled(service)

    @service.add_resource
    @asynccontextmanager
    async def deliver() -> AsyncIterator[None]:
        bucket = await service.bucket(EXPORTS)
        events = EventStream(stream, partial(service.bus.newest, EVENTS), read)
        async with (
            exports.running(bucket, store, closed),
            sinks.forwarding(bucket, events),
            feeds.forwarding(bucket, events),
        ):
            yield
