"""The audit room: every fact becomes a row, rows answer questions, and webhooks are told.

hears   every fact, from the stream FACTS; the bucket tb_config
says    nothing on the bus; facts to webhooks
answers AuditQueried, SpendingAsked, OpenCallsAsked
owns    the tables in ClickHouse, the bucket tb_seals, the sealing key
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from toolbus_audit import query, spending
from toolbus_audit.posting import Poster
from toolbus_audit.sealing.note import signer
from toolbus_audit.sealing.publishing import Publishing
from toolbus_audit.sealing.sealer import Sealer
from toolbus_audit.settings import Settings
from toolbus_audit.store import ClickHouse
from toolbus_audit.webhooks import Webhooks
from toolbus_audit.writer import MESSAGES, Writer
from toolbus_common.bus import StoredMessage
from toolbus_common.contracts import (
    AuditQueried,
    OpenCallsAsked,
    OpenCallsTold,
    RowsFound,
    SpendingAsked,
    SpendingTold,
)
from toolbus_common.contracts.fact import EVERY_FACT
from toolbus_common.egress.named import Named
from toolbus_common.egress.tls import Tls
from toolbus_common.ending import end
from toolbus_common.exchange import Exchange
from toolbus_common.provision import CONFIG, FACTS, SEALS, WEBHOOKS
from toolbus_common.room import Room
from toolbus_common.snapshot import Directory
from toolbus_common.streamreading import Kept, begun, read_from

CLOSE_SECONDS = 5.0
MOST_POSTED = 100  # messages of one pull
POLL_SECONDS = 5.0


def build(exchange: Exchange, settings: Settings | None = None) -> Room:
    """Wire the room. Nothing connects until it runs."""
    settings = settings or Settings()
    room = Room("audit", settings, exchange)
    store = ClickHouse(settings)
    writer = Writer(store)
    room.stands_by(writer.open)
    room.bus.on_lost.append(writer.doubt)
    room.why_not = lambda: writer.reason
    room.details = lambda: {"store": store.place, "rows": writer.rows, "dead": writer.dead}

    @room.needs
    @asynccontextmanager
    async def kept() -> AsyncIterator[None]:
        try:
            yield
            await writer.close(CLOSE_SECONDS)
        finally:
            await store.close()

    _tell_webhooks(room, settings)
    _seal(room, settings, writer, store)

    @room.hears(most=MESSAGES, seconds=1.0, pause=0.5)
    async def write(messages: list[StoredMessage]) -> None:
        await writer.hear(messages)

    @room.answers(AuditQueried)
    async def answer(question: AuditQueried) -> RowsFound:
        return await query.answer(store, question)

    @room.answers(SpendingAsked)
    async def spent(question: SpendingAsked) -> SpendingTold:
        return await spending.spending(store, question)

    @room.answers(OpenCallsAsked)
    async def still_open(question: OpenCallsAsked) -> OpenCallsTold:
        return await spending.open_calls(store, question)

    return room


def _seal(room: Room, settings: Settings, writer: Writer, store: ClickHouse) -> None:
    """Sign what the stream keeps, whether or not the store is there."""
    sealing = signer(settings.seal_name, settings.sealing_key)
    details = room.details
    room.details = lambda: details() | {"sealed_by": sealing.verifier}

    async def read(first: int) -> list[Kept]:
        return await read_from(room.bus.client, FACTS, first, EVERY_FACT)

    async def stream() -> str:
        writer.stream = await begun(room.bus.client, FACTS)
        return writer.stream

    @room.needs
    @asynccontextmanager
    async def sealed() -> AsyncIterator[None]:
        await stream()
        publishing = Publishing(store, settings.sealing_key.parent)
        sealer = Sealer(
            await room.bucket(SEALS), sealing, read, publishing.tell, settings.seal_seconds
        )
        running = asyncio.create_task(sealer.run(stream))
        try:
            yield
        finally:
            await end(running)


def _tell_webhooks(room: Room, settings: Settings) -> None:
    """Tell them beside everything else, whether or not the store is there."""
    directory, named = Directory(), Named()
    room.watches(CONFIG)(named.hear)
    room.watches(CONFIG)(directory.hear)
    poster = Poster(settings.egress, named.has, Tls(settings.egress_ca))
    webhooks = Webhooks(lambda: directory.now.declaration.webhooks, poster.post)

    @room.needs
    @asynccontextmanager
    async def told() -> AsyncIterator[None]:
        batches = room.bus.consume(FACTS, WEBHOOKS, MOST_POSTED, POLL_SECONDS)
        telling = asyncio.create_task(webhooks.run(batches))
        try:
            yield
        finally:
            await end(telling)
            await webhooks.close()
