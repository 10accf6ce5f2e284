"""The state of the stream of events, as `toolbus doctor` and `status` show it."""

import pytest

from toolbus_cli.clients.event_stream import described
from toolbus_common.nats.stream_reader import StreamUse

GIB = 1 << 30


@pytest.mark.parametrize(
    ("use", "text", "well"),
    [
        (StreamUse(GIB, 32 * GIB, 3, is_single_copy=False), "3% of 32 GiB, 3 copies", True),
        (StreamUse(16 * GIB, 32 * GIB, 3, is_single_copy=False), "--events-gib", False),
        (StreamUse(0, 32 * GIB, 1, is_single_copy=True), "--replicas 3", False),
        (StreamUse(GIB, -1, 1, is_single_copy=False), "0% of no maximum, 1 copy", True),
    ],
)
def test_a_stream_that_fills_up_or_has_one_copy_is_not_well(
    use: StreamUse, text: str, *, well: bool
) -> None:
    found, is_well = described(use)
    assert text in found
    assert is_well is well
