"""Messages of a server after the end of its call: sent to no caller (a FastMCP server on stdio)."""

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
async def client() -> AsyncIterator[CallRunner]:
    """Run the server, which all callers share."""
    client = CallRunner()
    await client.open(StdioUpstream(COMMAND, dict(os.environ), "", client.news))
    assert client.described.family == "legacy"
    yield client
    await client.close()


def words(answers: ReplyRecorder) -> list[str]:
    """Return the log messages a call received."""
    return [
        json.loads(each.body)["data"] for each in answers.frames if isinstance(each, Notification)
    ]


async def test_a_late_message_never_reaches_another_principal(client: CallRunner) -> None:
    await client.call("leave", {"word": "ann's"}, **ANN, **LISTENS)
    result = await client.call("stay", {"word": "eve's"}, **EVE, **LISTENS)
    assert "ann's" not in words(result)
    assert "inputRequests" not in result.last
    assert "refused: The request cannot be attributed to a call" in result.text
    assert client.dropped.count("request") == 1
    assert client.dropped.count("log") >= 1


async def test_a_message_of_a_cancelled_call_does_not_reach_the_next_call_of_another(
    client: CallRunner,
) -> None:
    answers = ReplyRecorder()
    call = admitted("linger", {"word": "ann's"}, call_id="c7", log_level="debug", **ANN)
    lingering = asyncio.create_task(client.run(call, answers))
    await until(lambda: words(answers) == ["waiting"], "the call")
    client.runner.cancel("c7")
    await lingering
    result = await client.call("stay", {"word": "eve's"}, **EVE, **LISTENS)
    assert "ann's" not in words(result)
    assert "refused" in result.text


async def test_messages_and_requests_of_a_server_reach_every_call_of_one_principal(
    client: CallRunner,
) -> None:
    for word in ("first", "second", "third"):
        request = await client.call("ask", {"word": word}, **ANN, **LISTENS)
        assert words(request) == [word]
        more = input_responses(request, elicitation={"action": "accept", "content": {"ok": True}})
        result = await client.call("ask", {"word": word}, extra=more, **ANN, **LISTENS)
        assert result.text == '["accept"]'
    assert client.dropped == []


async def test_a_message_without_a_running_call_blocks_attribution_for_a_while(
    client: CallRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.call("leave", {"word": "late"}, **ANN, **LISTENS)
    # This call receives no messages, so the message it releases is sent after its end.
    assert (await client.call("release", **ANN)).text == "released"
    await until(lambda: client.dropped == ["log", "request"], "the late messages")
    assert words(await client.call("stay", {"word": "own"}, **ANN, **LISTENS)) == []
    monkeypatch.setattr(attribution, "monotonic", lambda: float("inf"))
    result = await client.call("stay", {"word": "own", "jobs": 0}, **ANN, **LISTENS)
    assert words(result) == ["own"]
