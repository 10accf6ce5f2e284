"""What a server says after its call has ended reaches nobody: a FastMCP server on stdio."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.services.call_runner import CallRunner, ReplyRecorder, admitted, input_responses
from harness.upstreams import late_message_server
from harness.waits import until
from toolbus_common.contracts import Notification
from toolbus_executor.upstreams.mcp import attribution
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream

COMMAND = [sys.executable, str(Path(late_message_server.__file__))]
ANN: dict[str, Any] = {"customer": "acme", "key": "ann"}
EVE: dict[str, Any] = {"customer": "rival", "key": "eve"}
LISTENS: dict[str, Any] = {"log_level": "debug", "capabilities": '{"elicitation":{}}'}


@pytest.fixture
async def bench() -> AsyncIterator[CallRunner]:
    """A runner over the server, which all callers share."""
    made = CallRunner()
    await made.open(StdioUpstream(COMMAND, dict(os.environ), "", made.news))
    assert made.described.family == "legacy"
    yield made
    await made.close()


def words(answers: ReplyRecorder) -> list[str]:
    """What a call was told of the server's log."""
    return [
        json.loads(each.body)["data"] for each in answers.frames if isinstance(each, Notification)
    ]


async def test_a_late_message_never_reaches_another_principal(bench: CallRunner) -> None:
    await bench.call("leave", {"word": "ann's"}, **ANN, **LISTENS)
    result = await bench.call("stay", {"word": "eve's"}, **EVE, **LISTENS)
    assert "ann's" not in words(result)
    assert "inputRequests" not in result.last
    assert "refused: The request cannot be attributed to a call" in result.text
    assert bench.dropped.count("request") == 1
    assert bench.dropped.count("log") >= 1


async def test_a_server_that_was_cancelled_is_not_heard_in_the_next_call_of_another(
    bench: CallRunner,
) -> None:
    answers = ReplyRecorder()
    call = admitted("linger", {"word": "ann's"}, call_id="c7", log_level="debug", **ANN)
    lingering = asyncio.create_task(bench.runner.run(call, answers))
    await until(lambda: words(answers) == ["waiting"], "the call")
    bench.runner.cancel("c7")
    await lingering
    result = await bench.call("stay", {"word": "eve's"}, **EVE, **LISTENS)
    assert "ann's" not in words(result)
    assert "refused" in result.text


async def test_within_its_call_a_server_is_heard_and_may_ask_in_every_call_of_one_principal(
    bench: CallRunner,
) -> None:
    for word in ("first", "second", "third"):
        request = await bench.call("ask", {"word": word}, **ANN, **LISTENS)
        assert words(request) == [word]
        more = input_responses(request, elicitation={"action": "accept", "content": {"ok": True}})
        result = await bench.call("ask", {"word": word}, extra=more, **ANN, **LISTENS)
        assert result.text == '["accept"]'
    assert bench.dropped == []


async def test_a_server_that_speaks_while_no_call_is_under_way_is_not_believed_for_a_while(
    bench: CallRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.call("leave", {"word": "late"}, **ANN, **LISTENS)
    # Nobody hears this call, so that what it sets free is said when it has ended.
    assert (await bench.call("release", **ANN)).text == "released"
    await until(lambda: bench.dropped == ["log", "request"], "the late words")
    assert words(await bench.call("stay", {"word": "own"}, **ANN, **LISTENS)) == []
    monkeypatch.setattr(attribution, "monotonic", lambda: float("inf"))
    result = await bench.call("stay", {"word": "own", "jobs": 0}, **ANN, **LISTENS)
    assert words(result) == ["own"]
