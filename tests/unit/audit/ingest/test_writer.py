"""The event writer against a store that fails in every way."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_audit.clickhouse.row_mapper import Rows
from toolbus_audit.ingest.writer import BATCH_EVENTS, PULL_MESSAGES, Writer
from toolbus_common.nats.connection import StoredMessage

LINE = b'{"event":"call.allowed","producer":"p","seq":1,"id":"%d","at":1763708342.5,"customer":"a"}'


class Store:
    """A store in memory that fails the next `down` times."""

    def __init__(self, down: int = 0) -> None:
        self.down = down
        self.inserts: list[tuple[str, int, str]] = []
        self.positions: list[tuple[int, int, str]] = []
        self.looked_up: list[list[int]] = []
        self.tokens: list[str] = []

    async def open(self) -> None:
        self._fail()

    async def insert(self, table: str, what: Rows, token: str) -> None:
        self.tokens.append(token)
        self._fail()
        self.inserts.append((table, len(what), token))
        self.positions += [row.position for row in what]

    async def stored(self, sequences: Sequence[int]) -> set[tuple[int, int, str]]:
        self._fail()
        self.looked_up.append(list(sequences))
        return {position for position in self.positions if position[0] in sequences}

    async def last_sequence(self) -> int:
        self._fail()
        return max((position[0] for position in self.positions), default=0)

    async def dead_letters(self) -> int:
        return 0

    def _fail(self) -> None:
        if self.down:
            self.down -= 1
            raise StoreDownError("ClickHouse is down.")


class Pull:
    """Makes messages, and records which were acknowledged or returned."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.returned: list[int] = []

    def message(self, sequence: int, lines: int = 1, *, delivered: int = 1) -> StoredMessage:
        async def ack() -> None:
            self.acknowledged.append(sequence)

        async def nak(**_: Any) -> None:
            self.returned.append(sequence)

        data = b"\n".join(LINE % (sequence * 1000 + line) for line in range(lines))
        source: Any = SimpleNamespace(ack=ack, ack_sync=ack, nak=nak)
        return StoredMessage("tb.event.call.allowed.a", data, sequence, delivered, 0, source)


async def opened(store: Store, **options: float) -> Writer:
    writer = Writer(store, **options)
    await writer.open()
    return writer


async def test_a_message_is_acknowledged_only_after_its_rows_are_stored() -> None:
    store, pull = Store(), Pull()
    writer = await opened(store)
    await writer.receive([pull.message(1, 3), pull.message(2)])
    assert [(table, rows) for table, rows, _ in store.inserts] == [("events", 4)]
    assert pull.acknowledged == [1, 2]
    assert store.looked_up == []


async def test_a_full_pull_waits_for_more_until_the_batch_is_full() -> None:
    store, pull = Store(), Pull()
    writer = await opened(store)
    lines = BATCH_EVENTS // PULL_MESSAGES // 2
    await writer.receive([pull.message(n + 1, lines) for n in range(PULL_MESSAGES)])
    assert store.inserts == []
    await writer.receive([pull.message(PULL_MESSAGES + n + 1, lines) for n in range(PULL_MESSAGES)])
    await writer.flush()
    assert [rows for _, rows, _ in store.inserts] == [BATCH_EVENTS]
    assert len(pull.acknowledged) == 2 * PULL_MESSAGES


class PausedStore(Store):
    """A store whose inserts wait for `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0
        self.released = asyncio.Event()

    async def insert(self, table: str, what: Rows, token: str) -> None:
        self.started += 1
        await self.released.wait()
        await super().insert(table, what, token)


def full(pull: Pull, first: int) -> list[StoredMessage]:
    """Return messages that fill a batch."""
    return [pull.message(first + n, BATCH_EVENTS // PULL_MESSAGES) for n in range(PULL_MESSAGES)]


async def test_a_second_batch_fills_during_a_write_and_a_third_waits() -> None:
    store, pull = PausedStore(), Pull()
    writer = await opened(store)
    await writer.receive(full(pull, 1))
    await writer.receive([pull.message(PULL_MESSAGES + n + 1) for n in range(PULL_MESSAGES)])
    third = asyncio.create_task(writer.receive(full(pull, 2 * PULL_MESSAGES + 1)))
    await asyncio.sleep(0.01)
    assert (store.started, store.inserts, pull.acknowledged) == (1, [], [])
    store.released.set()
    await third
    await writer.flush()
    assert [rows for _, rows, _ in store.inserts] == [BATCH_EVENTS, PULL_MESSAGES + BATCH_EVENTS]
    assert pull.acknowledged == list(range(1, 3 * PULL_MESSAGES + 1))


async def test_messages_held_too_long_behind_a_slow_write_are_returned() -> None:
    store, pull = PausedStore(), Pull()
    writer = await opened(store, hold_seconds=0.0)
    await writer.receive(full(pull, 1))
    waiting = asyncio.create_task(writer.receive([pull.message(PULL_MESSAGES + 1)]))
    await asyncio.sleep(0.01)
    store.released.set()
    await waiting
    assert [rows for _, rows, _ in store.inserts] == [BATCH_EVENTS]
    assert pull.returned == [PULL_MESSAGES + 1]


async def test_an_unexpected_error_returns_the_messages() -> None:
    class Broken(Store):
        async def insert(self, table: str, what: Rows, token: str) -> None:
            raise ValueError(table, what, token)

    pull = Pull()
    writer = await opened(Broken())
    await writer.receive([pull.message(1), pull.message(2)])
    assert (pull.acknowledged, pull.returned) == ([], [1, 2])


async def test_an_empty_pull_writes_the_partial_batch() -> None:
    store, pull = Store(), Pull()
    writer = await opened(store)
    await writer.receive([pull.message(n + 1) for n in range(PULL_MESSAGES)])
    await writer.receive([])
    assert len(pull.acknowledged) == PULL_MESSAGES


async def test_a_failed_write_is_retried_with_the_same_token() -> None:
    store, pull = Store(), Pull()
    writer = await opened(store)
    store.down = 2
    await writer.receive([pull.message(1)])
    assert pull.acknowledged == [1]
    assert len(store.tokens) == 3
    assert len(set(store.tokens)) == 1
    assert writer.reason == ""


async def test_a_batch_held_too_long_is_returned_and_the_writer_waits_for_the_store() -> None:
    store, pull = Store(), Pull()
    writer = await opened(store, hold_seconds=0.0)
    store.down = 2
    await writer.receive([pull.message(1), pull.message(2)])
    assert pull.acknowledged == []
    assert pull.returned == [1, 2]
    assert store.down == 0
    assert writer.reason == ""


@pytest.mark.parametrize("delivered", [1, 2])
async def test_a_redelivered_message_is_looked_up_and_only_acknowledged(delivered: int) -> None:
    store, pull = Store(), Pull()
    for _ in range(2):
        writer = await opened(store)
        await writer.receive([pull.message(5, 2, delivered=delivered)])
    assert [rows for _, rows, _ in store.inserts] == [2]
    assert pull.acknowledged == [5, 5]


async def test_after_a_reconnect_rows_stored_by_another_writer_are_looked_up() -> None:
    store, pull = Store(), Pull()
    mine, theirs = Writer(store), Writer(store)
    await mine.open()
    await theirs.open()
    await theirs.receive([pull.message(1)])
    mine.bus_lost()
    await mine.receive([pull.message(1)])
    assert len(store.inserts) == 1


async def test_events_of_a_recreated_stream_are_new_events() -> None:
    store, pull = Store(), Pull()
    writer = await opened(store)
    await writer.receive([pull.message(1)])
    store.positions = [(1, 0, "another event of an older stream")]
    await writer.receive([pull.message(1)])
    assert len(store.inserts) == 2


async def test_closing_with_the_store_down_ends_in_time_and_acknowledges_nothing() -> None:
    store, pull = Store(), Pull()
    writer = await opened(store)
    store.down = 10**6
    receiving = asyncio.create_task(writer.receive([pull.message(1)]))
    while not store.tokens:  # noqa: ASYNC110
        await asyncio.sleep(0)
    receiving.cancel()
    await writer.close(0.05)
    assert pull.acknowledged == []
