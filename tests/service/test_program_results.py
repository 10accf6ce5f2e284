"""Large results of programs on a real bus: stored under a handle, for their key only."""

from collections.abc import AsyncIterator

import pytest

from harness.engines.nats_server import NatsAt
from toolbus_codemode.results.result_store import LARGEST, SLOTS, Results
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.object_store import Objects
from toolbus_common.nats.topology import MAX_RESULT_BYTES, RESULT_SECONDS, RESULTS
from toolbus_common.settings import Settings

MINE, YOURS = "a" * 64, "b" * 64  # digests of two keys


@pytest.fixture
async def bus(settings: Settings, nats_server: NatsAt) -> AsyncIterator[Bus]:
    """Open the bus with codemode's permissions."""
    joined = Bus("codemode", settings.nats_url, nats_server.seed("codemode"))
    await joined.open()
    yield joined
    await joined.close()


@pytest.fixture
def results(bus: Bus) -> Results:
    return of(bus)


def of(bus: Bus) -> Results:
    return Results(lambda: Objects.opened(bus, RESULTS))


async def test_a_result_is_read_by_any_replica_for_its_key(bus: Bus) -> None:
    rows = [{"id": number, "name": "é"} for number in range(1000)]
    handle = await of(bus).keep(MINE, rows)
    outcome = await of(bus).recalled(MINE, {"handle": handle})
    assert outcome.value == rows


async def test_another_key_has_no_result_under_the_same_handle(results: Results) -> None:
    await results.keep(YOURS, "yours")
    handle = await results.keep(MINE, "mine")
    for slot in range(SLOTS):
        guessed = f"r{slot:x}{handle[2:]}"
        assert await results.read(YOURS, guessed) is None
    assert await results.read(MINE, handle) == b'"mine"'


@pytest.mark.parametrize("handle", ["", "r0", "r0" + "A" * 16, "x" * 18, "../r0", "r0" + "é" * 16])
async def test_an_invalid_handle_is_an_unknown_result(results: Results, handle: str) -> None:
    failure = (await results.recalled(MINE, {"handle": handle})).failure
    assert failure is not None
    assert failure.code == "unknown_result"
    assert "Run the program that created it again." in failure.message


async def test_a_changed_handle_finds_nothing(results: Results) -> None:
    handle = await results.keep(MINE, "mine")
    other = "A" if handle[-1] != "A" else "B"
    assert await results.read(MINE, handle[:-1] + other) is None


async def test_a_reader_of_the_store_cannot_read_a_result(bus: Bus, operator: Bus) -> None:
    await of(bus).keep(MINE, "a-word-nobody-else-should-read")
    stream = operator.client.jetstream()
    state = (await stream.stream_info(f"OBJ_{RESULTS}")).state
    stored = [
        (await stream.get_msg(f"OBJ_{RESULTS}", number)).data or b""
        for number in range(state.first_seq, state.last_seq + 1)
    ]
    assert len(stored) == 2  # the encrypted result and the store's own metadata
    assert not any(b"a-word" in each or MINE.encode() in each for each in stored)


async def test_a_key_retains_its_newest_results_only(results: Results, operator: Bus) -> None:
    handles = [await results.keep(MINE, number) for number in range(SLOTS + 3)]
    results_left = [await results.read(MINE, handle) for handle in handles]
    assert results_left == [None] * 3 + [str(number).encode() for number in range(3, SLOTS + 3)]
    state = (await operator.client.jetstream().stream_info(f"OBJ_{RESULTS}")).state
    assert state.messages == 2 * SLOTS  # replaced results use no space


async def test_the_largest_result_is_stored_completely(results: Results) -> None:
    largest = "x" * (LARGEST - 2)
    handle = await results.keep(MINE, largest)
    assert (await results.recalled(MINE, {"handle": handle})).value == largest


async def test_results_expire_and_are_limited_in_total_size(
    results: Results, operator: Bus
) -> None:
    await results.keep(MINE, 1)
    config = (await operator.client.jetstream().stream_info(f"OBJ_{RESULTS}")).config
    assert (config.max_age, config.max_bytes) == (RESULT_SECONDS, MAX_RESULT_BYTES)


async def test_a_full_store_is_an_error_and_retains_its_content(bus: Bus, operator: Bus) -> None:
    results = of(bus)
    handle = await results.keep(MINE, 1)
    stream = operator.client.jetstream()
    config = (await stream.stream_info(f"OBJ_{RESULTS}")).config
    await stream.update_stream(config.evolve(max_bytes=20_000))
    with pytest.raises(BusDownError, match="cannot be written"):
        await results.keep(MINE, "x" * 30_000)
    assert await results.read(MINE, handle) == b"1"
