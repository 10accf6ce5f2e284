"""Progress notifications of a server: thinned for the client, and the last one always sent."""

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
from toolbus_executor.upstreams.progress_limiter import MAX_PER_SECOND, SECOND, ProgressLimiter

STEPS = 10_000


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[CallRunner]:
    """Run a server with a tool that sends a given number of progress notifications."""
    server = Upstream(tmp_path / "echo")
    server.start()
    client = CallRunner()
    await client.open(HttpUpstream(server.url, {}, client.news, AT_LOOPBACK))
    yield client
    await client.close()
    server.kill()


def steps(answers: ReplyRecorder) -> list[int]:
    """Return the progress a client received, in order."""
    return [json.loads(f.body)["progress"] for f in answers.frames if isinstance(f, Progress)]


async def test_a_flood_of_progress_is_thinned_in_order_and_its_last_is_sent(
    client: CallRunner,
) -> None:
    began = monotonic()
    answers = await client.call("drip", {"steps": STEPS}, progress=True)
    seconds = int((monotonic() - began) / SECOND) + 1
    result = steps(answers)
    assert result == sorted(set(result))
    assert result[0] == 1
    assert result[-1] == STEPS
    assert len(result) <= seconds * MAX_PER_SECOND + 1, "the last one may be sent early"
    assert isinstance(answers.frames[-1], CallResult)


async def test_rare_progress_is_sent_completely(client: CallRunner) -> None:
    answers = await client.call("drip", {"steps": MAX_PER_SECOND}, progress=True)
    assert steps(answers) == list(range(1, MAX_PER_SECOND + 1))


@given(st.lists(st.floats(0, 0.3), max_size=400))
def test_no_second_contains_more_than_the_limit(gaps: list[float]) -> None:
    pace, now, result = ProgressLimiter(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        if pace.wait(now) == 0:
            pace.tell(now)
            result.append(now)
    for first, later in zip(result, result[MAX_PER_SECOND:], strict=False):
        assert later >= first + SECOND
