"""Parts of results by JMESPath, whatever the expression tries."""

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
async def server() -> AsyncIterator[LargeResultServer]:
    made = LargeResultServer()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def bench(server: LargeResultServer) -> AsyncIterator[CallRunner]:
    made = CallRunner()
    selector = made.runner.selector = Selector()
    await made.open(HttpUpstream(server.url, {}, made.news, AT_LOOPBACK))
    yield made
    await made.close()
    await selector.close()


async def select(bench: CallRunner, expression: Any, tool: str = "rows") -> ReplyRecorder:
    extra = json.dumps({"_meta": {SELECT: expression}})
    return await bench.call(tool, {"bytes": 5000}, extra=extra)


async def test_what_is_found_is_told_instead_of_the_result(
    bench: CallRunner, server: LargeResultServer
) -> None:
    items = (await select(bench, "rows[0].name")).last
    assert items["content"] == [{"type": "text", "text": '"]}\\""'}]
    assert "structuredContent" not in items
    items = (await select(bench, "{first: rows[0].id, many: length(rows)}")).last
    assert items["structuredContent"]["first"] == 0
    assert items["structuredContent"]["many"] > 10
    assert json.loads(items["content"][0]["text"]) == items["structuredContent"]
    assert SELECT not in json.dumps(server.requests)


@pytest.mark.parametrize(
    "expression",
    ["", "a.[", 7, "!" * 1000 + "a", "a" * (MAX_LENGTH + 1), "nosuch(@"],
)
async def test_what_is_no_expression_is_refused_before_the_call(
    bench: CallRunner, server: LargeResultServer, expression: Any
) -> None:
    assert isinstance((await select(bench, expression)).error, InvalidError)
    assert server.call_count == 0
    assert not bench.outcome.sent


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("nosuch(@)", "Unknown function"),
        ("length(`1`)", "length"),
        (f"rows | [{MANY}] | [{MANY}]", "select less"),
        ("[@,@][] | " * 60 + "@", "select something simpler"),
        ("[@,@] | " * 100 + "to_string(@)", "select something simpler"),
    ],
)
async def test_an_expression_that_fails_or_explodes_leaves_the_result_whole(
    bench: CallRunner, expression: str, why: str
) -> None:
    items = (await select(bench, expression)).last
    assert why in items["content"][0]["text"]
    assert "The call was made" in items["content"][0]["text"]
    assert items["structuredContent"]["rows"]
    assert (await select(bench, "rows[0].id")).last["content"][0]["text"] == "0"


async def test_a_result_that_is_no_json_is_told_whole(bench: CallRunner) -> None:
    items = (await select(bench, "a", "text")).last
    assert "has no JSON" in items["content"][0]["text"]
    assert items["content"][-1]["text"] == "the end"
