"""System calls of the supervisor."""

import os

from harness.high_descriptors import HIGH, duplicated_high
from toolbus_executor.isolation.linux.syscalls import is_readable


def test_a_descriptor_of_any_number_is_readable_when_data_or_its_end_arrived() -> None:
    reading, writing = os.pipe()
    with duplicated_high(reading) as high:
        os.close(reading)
        assert high >= HIGH
        assert not is_readable(high)
        os.write(writing, b"x")
        assert is_readable(high)
        os.read(high, 1)
        assert not is_readable(high)
        os.close(writing)
        assert is_readable(high)
