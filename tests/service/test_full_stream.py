"""Events that NATS does not store because it has no space for them."""

import json
from pathlib import Path

import pytest

from harness.engines.nats_server import NatsServer
from toolbus_common.contracts import ConfigApplied
from toolbus_common.errors import EventsFullError
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.stream_reader import use_of
from toolbus_common.nats.topology import EVENTS, events_stream

NO_LIMIT = -1


class SmallServer(NatsServer):
    """A NATS server that stores a megabyte in files."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        configuration = json.loads(self._configuration.read_text())
        configuration["jetstream"]["max_file_store"] = 1 << 20
        self._configuration.write_text(json.dumps(configuration))


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"max_bytes": 300 << 10}, "--events-gib"),
        ({"max_msgs": 3}, "--events-gib"),
        ({}, "max_file_store"),
    ],
    ids=["bytes", "messages", "storage of the server"],
)
async def test_a_call_that_finds_no_space_for_its_event_says_which_limit_to_raise(
    tmp_path: Path, limits: dict[str, int], named: str
) -> None:
    with SmallServer(tmp_path).running() as server:
        bus = Bus(OPERATOR, server.url, (server.seeds / f"{OPERATOR}.seed").read_text())
        await bus.open()
        await bus.client.jetstream().add_stream(events_stream(NO_LIMIT).evolve(**limits))

        async def fill() -> None:
            for number in range(20):
                subject = f"tb.event.{ConfigApplied.NAME}.c"
                await bus.store(Envelope(subject, f"m{number}", b" " * (100 << 10)))

        try:
            with pytest.raises(EventsFullError, match=named):
                await fill()
            use = await use_of(bus.client, EVENTS)
        finally:
            await bus.close()
        assert use.stored >= 200 << 10
        assert (use.fill > 0) is ("max_bytes" in limits)
