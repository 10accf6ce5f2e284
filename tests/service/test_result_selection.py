"""Result selection by JMESPath, with hostile expressions."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.services.call_runner import AT_LOOPBACK, CallRunner, ReplyRecorder
from harness.upstreams.large_result_server import LargeResultServer
from toolbus_common.errors import InvalidError
from toolbus_executor.mcp_messages.request_builder import SELECT
from toolbus_executor.results.selection.expressions import MAX_LENGTH
from toolbus_executor.results.selection.worker_client import Selector
from toolbus_executor.upstreams.mcp.http import HttpUpstream

MANY = ",".join("@" * 30)


@pytest.fixture
async def client(result_server: LargeResultServer) -> AsyncIterator[CallRunner]:
    client = CallRunner()
    selector = client.runner.selector = Selector()
    await client.open(HttpUpstream(result_server.url, {}, client.news, AT_LOOPBACK))
    yield client
    await client.close()
    await selector.close()


async def select(client: CallRunner, expression: Any, tool: str = "rows") -> ReplyRecorder:
    extra = json.dumps({"_meta": {SELECT: expression}})
    return await client.call(tool, {"bytes": 5000}, extra=extra)


async def test_the_selection_is_returned_instead_of_the_result(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    items = (await select(client, "rows[0].name")).last
    assert items["content"] == [{"type": "text", "text": '"]}\\""'}]
    assert "structuredContent" not in items
    items = (await select(client, "{first: rows[0].id, many: length(rows)}")).last
    assert items["structuredContent"]["first"] == 0
    assert items["structuredContent"]["many"] > 10
    assert json.loads(items["content"][0]["text"]) == items["structuredContent"]
    assert SELECT not in json.dumps(result_server.requests)


@pytest.mark.parametrize(
    "expression",
    ["", "a.[", 7, "!" * 1000 + "a", "a" * (MAX_LENGTH + 1), "nosuch(@"],
)
async def test_an_invalid_expression_is_rejected_before_the_call(
    client: CallRunner, result_server: LargeResultServer, expression: Any
) -> None:
    assert isinstance((await select(client, expression)).error, InvalidError)
    assert result_server.call_count == 0
    assert not client.outcome.sent


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("nosuch(@)", "Unknown function"),
        ("length(`1`)", "length"),
        (f"rows | [{MANY}] | [{MANY}]", "select less"),
        ("[@,@][] | " * 60 + "@", "use a simpler expression"),
        ("[@,@] | " * 100 + "to_string(@)", "use a simpler expression"),
    ],
)
async def test_a_failing_or_exploding_expression_leaves_the_result_complete(
    client: CallRunner, expression: str, why: str
) -> None:
    items = (await select(client, expression)).last
    assert why in items["content"][0]["text"]
    assert "The call was executed" in items["content"][0]["text"]
    assert items["structuredContent"]["rows"]
    assert (await select(client, "rows[0].id")).last["content"][0]["text"] == "0"


async def test_a_result_without_json_is_returned_completely(client: CallRunner) -> None:
    items = (await select(client, "a", "text")).last
    assert "has no JSON" in items["content"][0]["text"]
    assert items["content"][-1]["text"] == "the end"
