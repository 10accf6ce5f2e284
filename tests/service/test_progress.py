"""A server that tells its progress too often: an agent hears enough of it, and always the last."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gateway.cluster import Upstream
from harness.services.call_runner import AT_LOOPBACK, CallRunner, ReplyRecorder
from toolbus_common.contracts import CallResult, Progress
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.progress_limiter import MOST, SECOND, ProgressLimiter

STEPS = 10_000


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[CallRunner]:
    """A runner over a server of which one tool tells as many steps as it is told to."""
    server = Upstream(tmp_path / "echo")
    server.start()
    made = CallRunner()
    await made.open(HttpUpstream(server.url, {}, made.news, AT_LOOPBACK))
    yield made
    await made.close()
    server.kill()


def steps(answers: ReplyRecorder) -> list[int]:
    """The progress an agent was told, in the order it was."""
    return [json.loads(f.body)["progress"] for f in answers.frames if isinstance(f, Progress)]


async def test_a_flood_of_progress_is_thinned_in_order_and_its_last_is_told(
    bench: CallRunner,
) -> None:
    began = monotonic()
    answers = await bench.call("drip", {"steps": STEPS}, progress=True)
    seconds = int((monotonic() - began) / SECOND) + 1
    result = steps(answers)
    assert result == sorted(set(result))
    assert result[0] == 1
    assert result[-1] == STEPS
    assert len(result) <= seconds * MOST + 1, "the last one may be told early"
    assert isinstance(answers.frames[-1], CallResult)


async def test_what_is_told_seldom_is_told_whole(bench: CallRunner) -> None:
    answers = await bench.call("drip", {"steps": MOST}, progress=True)
    assert steps(answers) == list(range(1, MOST + 1))


@given(st.lists(st.floats(0, 0.3), max_size=400))
def test_no_second_holds_more_than_the_bound(gaps: list[float]) -> None:
    pace, now, result = ProgressLimiter(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        if pace.wait(now) == 0:
            pace.tell(now)
            result.append(now)
    for first, later in zip(result, result[MOST:], strict=False):
        assert later >= first + SECOND
