"""Results too large to tell, from real servers into a real store and back, in pieces."""

import gc
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness.apis.rest_process import RestServer
from harness.engines.nats_server import NatsAt
from harness.services.call_runner import AT_LOOPBACK, CallRunner
from harness.upstreams.large_result_server import LINE, LargeResultServer
from harness.waits import PATIENCE, until
from toolbus_common.config import Results, Server
from toolbus_common.contracts import CallCompleted, ProtocolFamily
from toolbus_common.errors import UnknownToolError, UpstreamFaultError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.object_store import Objects
from toolbus_common.nats.topology import RESULTS
from toolbus_common.settings import Settings
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.results.large.store import LargeResultStore
from toolbus_executor.results.selection.worker_client import Selector
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.mcp.http_transport import AnswerStream
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream
from toolbus_executor.upstreams.openapi.upstream import OpenApiUpstream

SIZE = 9 << 20  # more than a message of the bus holds
VAST = Path(__file__).parent.parent / "harness" / "upstreams" / "large_result_server.py"


@pytest.fixture
async def vault(settings: Settings, nats_server: NatsAt) -> AsyncIterator[LargeResultStore]:
    """The store as executor may use it."""
    bus = Bus("executor", settings.nats_url, nats_server.seed("executor"))
    await bus.open()
    yield LargeResultStore(lambda: Objects.opened(bus, RESULTS))
    await bus.close()


@pytest.fixture
async def server() -> AsyncIterator[LargeResultServer]:
    made = LargeResultServer()
    await made.start()
    yield made
    await made.close()


@pytest.fixture(params=["http", "stdio"])
async def bench(
    request: pytest.FixtureRequest, server: LargeResultServer, vault: LargeResultStore
) -> AsyncIterator[CallRunner]:
    """A runner over a server of long answers, with somewhere to keep them."""
    made = CallRunner()
    spills = made.runner.spills = SpillRegistry(vault, Results(largest=16 << 20))
    if request.param == "http":
        await made.open(HttpUpstream(server.url, {}, made.news, AT_LOOPBACK, spills=spills))
    else:
        command = [sys.executable, str(VAST)]
        await made.open(StdioUpstream(command, {}, "", made.news, spills=spills))
    yield made
    await made.close()
    await spills.close(PATIENCE)  # what is still removed meanwhile would meet the next test


http_only = pytest.mark.parametrize("bench", ["http"], indirect=True)


async def read(bench: CallRunner, uri: str, **more: Any) -> Any:
    result = await bench.call(uri, {"uri": uri}, method="resources/read", **more)
    return result.last["contents"][0]


async def whole(bench: CallRunner, uri: str) -> str:
    """All of a text, piece by piece."""
    text, following = "", f"{uri}?offset=0&length=1000000"
    while following:
        content = await read(bench, following)
        text += content["text"]
        following = content["_meta"]["dev.toolbus/result"].get("next", "")
    return text


@pytest.mark.parametrize("tool", ["text", "streamed"])
async def test_a_long_text_is_previewed_and_read_piece_by_piece(
    bench: CallRunner, tool: str
) -> None:
    items = (await bench.call(tool, {"bytes": SIZE})).last
    preview, link, end = items["content"]
    assert end == {"type": "text", "text": "the end"}
    assert LINE in preview["text"]
    assert link["uri"] in preview["text"]
    assert (link["type"], link["mimeType"]) == ("resource_link", "text/plain")
    text = await whole(bench, link["uri"])
    assert len(text.encode()) == link["size"]
    assert text == LINE * (len(text) // len(LINE))
    assert len(text) > SIZE // 2


@http_only
async def test_the_outcome_counts_what_was_kept(bench: CallRunner) -> None:
    price = (0.0, 1000.0, 0.0)  # micro-dollars a kilobyte
    result = await bench.call("text", {"bytes": SIZE}, price=price, charge=10**9)
    size = result.last["content"][1]["size"]
    outcome = bench.outcome
    assert isinstance(outcome, CallCompleted)
    assert outcome.result_bytes > size
    assert outcome.charge > size // 1024 * 1000


@http_only
async def test_an_answered_call_leaves_nothing_for_the_collector(bench: CallRunner) -> None:
    before = streams()  # tests of other modules may have left some in this process
    gc.disable()
    try:
        await bench.call("text", {"bytes": 10})
        assert not [one for one in streams() if one not in before]
    finally:
        gc.enable()


def streams() -> list[AnswerStream]:
    return [one for one in gc.get_objects() if isinstance(one, AnswerStream)]


@http_only
async def test_another_key_and_another_customer_read_nothing(bench: CallRunner) -> None:
    uri = (await bench.call("text", {"bytes": SIZE})).last["content"][1]["uri"]
    for stranger in ({"key": "other"}, {"customer": "other"}):
        result = await bench.call(uri, {"uri": uri}, method="resources/read", **stranger)
        assert isinstance(result.error, UnknownToolError)
    other_tool = uri.replace("/text/", "/rows/")
    result = await bench.call(other_tool, {"uri": other_tool}, method="resources/read")
    assert isinstance(result.error, UnknownToolError)
    assert (await read(bench, uri))["text"].startswith(LINE)


async def test_a_large_image_is_read_as_its_bytes(bench: CallRunner) -> None:
    (words, link) = (await bench.call("image", {"bytes": SIZE})).last["content"]
    assert "image" in words["text"]
    assert link["mimeType"] == "image/png"
    assert (await read(bench, f"{link['uri']}?offset=6&length=6"))["blob"] == "iVBORw0K"


async def test_a_large_structure_is_an_error_that_says_where_it_is(bench: CallRunner) -> None:
    items = (await bench.call("rows", {"bytes": SIZE}, family=ProtocolFamily.LEGACY)).last
    assert items["isError"]
    assert "structuredContent" not in items
    link = items["content"][-1]
    assert link["mimeType"] == "application/json"
    assert (await whole(bench, link["uri"])).startswith('{"rows":[{"id":0,"name":"]}\\""}')
    selector = bench.runner.selector = Selector()
    try:
        found = await read(bench, f"{link['uri']}?select={quote('rows[0].name')}")
    finally:
        await selector.close()
    assert found["text"] == '"]}\\""'


@http_only
async def test_what_exceeds_a_lower_limit_is_kept_too(
    bench: CallRunner, vault: LargeResultStore
) -> None:
    bench.runner.spills = SpillRegistry(vault, Results(limit=64 << 10))
    items = (await bench.call("text", {"bytes": 100_000})).last
    assert items["content"][1]["type"] == "resource_link"
    items = (await bench.call("many", {"bytes": 100_000})).last
    assert [each["type"] for each in items["content"]] == ["text", "resource_link"]
    assert (await read(bench, items["content"][1]["uri"]))["text"].startswith('{"resultType"')
    items = (await bench.call("text", {"bytes": 1000})).last
    assert [each["type"] for each in items["content"]] == ["text", "text"]


@http_only
@pytest.mark.parametrize("tool", ["many", "escape"])
async def test_what_cannot_be_kept_is_an_error_and_nothing_stays_behind(
    bench: CallRunner, vault: LargeResultStore, tool: str
) -> None:
    result = await bench.call(tool, {"bytes": SIZE})
    assert isinstance(result.error, UpstreamFaultError)
    await until(lambda: vault.quota.used == 0, "room to be given back")


async def test_where_there_is_no_room_only_the_large_call_fails(
    bench: CallRunner, vault: LargeResultStore
) -> None:
    pid = getattr(bench.upstream, "pid", None)
    vault.quota.limit = 4 << 20
    result = await bench.call("text", {"bytes": SIZE})
    assert "result store is full" in result.error.reason
    assert (await bench.call("text", {"bytes": 10})).last["content"][-1]["text"] == "the end"
    assert getattr(bench.upstream, "pid", None) == pid
    await until(lambda: vault.quota.used == 0, "room to be given back")


@http_only
async def test_what_exceeds_the_largest_is_an_error_that_says_so(bench: CallRunner) -> None:
    result = await bench.call("text", {"bytes": 17 << 20})
    assert "request less" in result.error.reason
    assert (await bench.call("text", {"bytes": 10})).last["content"][-1]["text"] == "the end"


@http_only
async def test_a_handle_is_over_with_its_time(bench: CallRunner) -> None:
    spills = bench.runner.spills
    assert spills is not None
    items = (await bench.call("text", {"bytes": SIZE})).last
    uri = items["content"][1]["uri"]
    assert "offset" in (await read(bench, uri))["_meta"]["dev.toolbus/result"]
    spills._settings = spills._settings.model_copy(update={"ttl": -1.0})
    uri = (await bench.call("text", {"bytes": SIZE})).last["content"][1]["uri"]
    gone = await bench.call(uri, {"uri": uri}, method="resources/read")
    assert isinstance(gone.error, UnknownToolError)


@pytest.fixture
async def api(tmp_path: Path, vault: LargeResultStore) -> AsyncIterator[CallRunner]:
    """A runner over an HTTP API."""
    rest = RestServer(tmp_path)
    try:
        rest.start()
        made = CallRunner()
        spills = made.runner.spills = SpillRegistry(vault, Results(largest=16 << 20))
        await made.open(
            OpenApiUpstream(
                Server(openapi=rest.document),
                {},
                {"token": "token-that-is-secret"},
                made.news,
                AT_LOOPBACK,
                spills,
            )
        )
        yield made
        await made.close()
        await spills.close(PATIENCE)
    finally:
        rest.kill()


async def test_a_long_answer_of_an_api_is_kept_and_read_piece_by_piece(api: CallRunner) -> None:
    preview, link = (await api.call("large", {"size": SIZE})).last["content"]
    assert "xxx" in preview["text"]
    assert (link["size"], link["mimeType"]) == (SIZE, "text/plain")
    assert await whole(api, link["uri"]) == "x" * SIZE


async def test_what_is_kept_of_an_apis_answer_has_no_credentials_in_it(api: CallRunner) -> None:
    (_, link) = (await api.call("indiscreet", {"size": SIZE})).last["content"]
    text = await whole(api, link["uri"])
    assert text.count("x" * 65_530) == SIZE // 65_536
    assert "token-that" not in text
    assert "is-secret" not in text


async def test_an_answer_of_an_api_over_the_operators_bound_fails_alone(api: CallRunner) -> None:
    answers = await api.call("large", {"size": (16 << 20) + 1})
    assert isinstance(answers.error, UpstreamFaultError)
    assert (await api.call("large", {"size": 3})).text == "xxx"
