"""Token counting in a separate process: equal counts, restart after a crash."""

import os
import signal
from collections.abc import Iterator

import pytest

from toolbus_codemode.tokens.counter_process import CountingEndedError, CountingProcess
from toolbus_codemode.tokens.tokenizer import Tokens


@pytest.fixture(scope="module")
def counting() -> Iterator[CountingProcess]:
    """Yield one process for all texts: its start takes long."""
    made = CountingProcess()
    yield made
    made.close()


@pytest.mark.parametrize(
    "text", ["", "hello world", "<|endoftext|>", "half a pair: \ud800", "é\n" * 9]
)
def test_a_text_has_the_same_tokens_in_the_other_process(
    counting: CountingProcess, text: str
) -> None:
    assert counting.of(text) == Tokens().of(text)
    assert counting.counted_by == "o200k_base"


def test_a_crashed_counting_process_is_reported_and_the_next_count_starts_another(
    counting: CountingProcess,
) -> None:
    counting.of("hello")
    assert counting.pid is not None
    os.kill(counting.pid, signal.SIGKILL)
    with pytest.raises(CountingEndedError):
        counting.of("hello")
    assert counting.of("hello world") == 2
    counting.close()
    assert counting.pid is None
