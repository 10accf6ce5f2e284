"""The state of the stream of events, as `toolbus doctor` and `status` show it."""

import pytest

from toolbus_common.nats.stream_reader import StreamUse
from toolbus_common.status.event_stream import Level, described

GIB = 1 << 30


@pytest.mark.parametrize(
    ("use", "text", "level"),
    [
        (StreamUse(GIB, 32 * GIB, 3, is_single_copy=False), "3% of 32 GiB, 3 copies", Level.OK),
        (StreamUse(15 * GIB, 32 * GIB, 3, is_single_copy=False), "47% of 32 GiB", Level.OK),
        (StreamUse(16 * GIB, 32 * GIB, 3, is_single_copy=False), "--events-gib", Level.WARNING),
        (StreamUse(9 * GIB, 10 * GIB, 3, is_single_copy=False), "--events-gib", Level.WARNING),
        (StreamUse(29 * GIB, 32 * GIB, 3, is_single_copy=False), "--events-gib", Level.BAD),
        (StreamUse(0, 32 * GIB, 1, is_single_copy=True), "--replicas 3", Level.BAD),
        (StreamUse(0, 32 * GIB, 3, is_single_copy=False, lagging=1), "1 not comp", Level.WARNING),
        (StreamUse(GIB, -1, 1, is_single_copy=False), "0% of no maximum, 1 copy", Level.OK),
    ],
)
def test_a_stream_that_fills_up_or_lacks_a_copy_is_reported(
    use: StreamUse, text: str, level: Level
) -> None:
    found, its_level = described(use)
    assert text in found
    assert its_level is level
