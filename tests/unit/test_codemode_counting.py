"""Tokens counted in a process of their own: the same numbers, and another process when it fell."""

import os
import signal

import pytest

from toolbus_codemode.counting import CountingEndedError, CountingProcess
from toolbus_codemode.tokens import Tokens


@pytest.mark.parametrize(
    "text", ["", "hello world", "<|endoftext|>", "half a pair: \ud800", "é\n" * 9]
)
def test_a_text_has_the_same_tokens_in_the_other_process(text: str) -> None:
    counting = CountingProcess()
    try:
        assert counting.of(text) == Tokens().of(text)
        assert counting.counted_by == "o200k_base"
    finally:
        counting.close()


def test_a_counting_process_that_fell_is_told_and_the_next_count_starts_another() -> None:
    counting = CountingProcess()
    try:
        counting.of("hello")
        assert counting.pid is not None
        os.kill(counting.pid, signal.SIGKILL)
        with pytest.raises(CountingEndedError):
            counting.of("hello")
        assert counting.of("hello world") == 2
    finally:
        counting.close()
    assert counting.pid is None
