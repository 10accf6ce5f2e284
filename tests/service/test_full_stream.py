"""Events that NATS does not store because it has no space for them."""

import os
from pathlib import Path

import pytest

from harness.engines.nats_server import NatsServer
from toolbus_common.contracts import ConfigApplied
from toolbus_common.errors import BusDownError, EventsFullError
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.stream_reader import rejection, use_of
from toolbus_common.nats.topology import EVENTS, events_stream

NO_LIMIT = -1


@pytest.mark.parametrize("limits", [{"max_bytes": 300 << 10}, {"max_msgs": 3}], ids=str)
async def test_a_call_that_finds_the_stream_full_says_which_limit_to_raise(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    with NatsServer(tmp_path).running() as server:
        bus = Bus(OPERATOR, server.url, (server.seeds / f"{OPERATOR}.seed").read_text())
        await bus.open()
        await bus.client.jetstream().add_stream(events_stream(NO_LIMIT).evolve(**limits))

        async def fill() -> None:
            for number in range(20):
                subject = f"tb.event.{ConfigApplied.NAME}.c"
                await bus.store(Envelope(subject, f"m{number}", os.urandom(100 << 10)))

        try:
            with pytest.raises(EventsFullError, match="--events-gib"):
                await fill()
            use = await use_of(bus.client, EVENTS)
        finally:
            await bus.close()
        assert use.stored >= 200 << 10
        assert (use.fill > 0) is ("max_bytes" in limits)


@pytest.mark.parametrize(
    ("code", "description"),
    [
        (10002, "resource limits exceeded for account"),
        (10023, "insufficient resources"),
        (10047, "insufficient storage resources available"),
        (10077, "error opening msg block file: no space left on device"),
    ],
)
def test_a_server_without_space_is_reported_with_the_limit_of_the_server(
    code: int, description: str
) -> None:
    """NATS checks `max_file_store` late, so a real server refuses at no certain message."""
    error = rejection({"err_code": code, "description": description})
    assert isinstance(error, EventsFullError)
    assert "max_file_store" in str(error)
    assert description in str(error)


def test_another_refusal_of_the_stream_is_not_called_full() -> None:
    error = rejection({"err_code": 10060, "description": "expected stream does not match"})
    assert type(error) is BusDownError
