"""Large results of real servers, stored in a real object store and read in parts."""

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
from toolbus_common.errors import UnknownToolError, UpstreamInvalidError
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

SIZE = 9 << 20  # more than a message of the bus may contain
VAST = Path(__file__).parent.parent / "harness" / "upstreams" / "large_result_server.py"


@pytest.fixture
async def vault(settings: Settings, nats_server: NatsAt) -> AsyncIterator[LargeResultStore]:
    """Open the store with executor's permissions."""
    bus = Bus("executor", settings.nats_url, nats_server.seed("executor"))
    await bus.open()
    yield LargeResultStore(lambda: Objects.opened(bus, RESULTS))
    await bus.close()


@pytest.fixture(params=["http", "stdio"])
async def client(
    request: pytest.FixtureRequest, result_server: LargeResultServer, vault: LargeResultStore
) -> AsyncIterator[CallRunner]:
    """Run a server of large results, with a store for them."""
    client = CallRunner()
    spills = client.runner.spills = SpillRegistry(vault, Results(largest=16 << 20))
    if request.param == "http":
        await client.open(
            HttpUpstream(result_server.url, {}, client.news, AT_LOOPBACK, spills=spills)
        )
    else:
        command = [sys.executable, str(VAST)]
        await client.open(StdioUpstream(command, {}, "", client.news, spills=spills))
    yield client
    await client.close()
    await spills.close(PATIENCE)  # a removal still running would affect the next test


http_only = pytest.mark.parametrize("client", ["http"], indirect=True)


async def read(client: CallRunner, uri: str, **more: Any) -> Any:
    result = await client.call(uri, {"uri": uri}, method="resources/read", **more)
    return result.last["contents"][0]


async def whole(client: CallRunner, uri: str) -> str:
    """Return all of a text, part by part."""
    text, following = "", f"{uri}?offset=0&length=1000000"
    while following:
        content = await read(client, following)
        text += content["text"]
        following = content["_meta"]["dev.toolbus/result"].get("next", "")
    return text


@pytest.mark.parametrize("tool", ["text", "streamed"])
async def test_a_large_text_is_previewed_and_read_part_by_part(
    client: CallRunner, tool: str
) -> None:
    items = (await client.call(tool, {"bytes": SIZE})).last
    preview, link, end = items["content"]
    assert end == {"type": "text", "text": "the end"}
    assert LINE in preview["text"]
    assert link["uri"] in preview["text"]
    assert (link["type"], link["mimeType"]) == ("resource_link", "text/plain")
    text = await whole(client, link["uri"])
    assert len(text.encode()) == link["size"]
    assert text == LINE * (len(text) // len(LINE))
    assert len(text) > SIZE // 2


@http_only
async def test_the_outcome_counts_the_stored_result(client: CallRunner) -> None:
    price = (0.0, 1000.0, 0.0)  # micro-dollars a kilobyte
    result = await client.call("text", {"bytes": SIZE}, price=price, charge=10**9)
    size = result.last["content"][1]["size"]
    outcome = client.outcome
    assert isinstance(outcome, CallCompleted)
    assert outcome.result_bytes > size
    assert outcome.charge > size // 1024 * 1000


@http_only
async def test_an_answered_call_leaves_nothing_for_the_garbage_collector(
    client: CallRunner,
) -> None:
    before = streams()  # tests of other modules may have left some in this process
    gc.disable()
    try:
        await client.call("text", {"bytes": 10})
        assert not [one for one in streams() if one not in before]
    finally:
        gc.enable()


def streams() -> list[AnswerStream]:
    return [one for one in gc.get_objects() if isinstance(one, AnswerStream)]


@http_only
async def test_another_key_and_another_customer_cannot_read_a_result(client: CallRunner) -> None:
    uri = (await client.call("text", {"bytes": SIZE})).last["content"][1]["uri"]
    for stranger in ({"key": "other"}, {"customer": "other"}):
        result = await client.call(uri, {"uri": uri}, method="resources/read", **stranger)
        assert isinstance(result.error, UnknownToolError)
    other_tool = uri.replace("/text/", "/rows/")
    result = await client.call(other_tool, {"uri": other_tool}, method="resources/read")
    assert isinstance(result.error, UnknownToolError)
    assert (await read(client, uri))["text"].startswith(LINE)


async def test_a_large_image_is_read_as_its_bytes(client: CallRunner) -> None:
    (words, link) = (await client.call("image", {"bytes": SIZE})).last["content"]
    assert "image" in words["text"]
    assert link["mimeType"] == "image/png"
    assert (await read(client, f"{link['uri']}?offset=6&length=6"))["blob"] == "iVBORw0K"


async def test_a_large_structure_is_an_error_with_a_link_to_the_result(client: CallRunner) -> None:
    items = (await client.call("rows", {"bytes": SIZE}, family=ProtocolFamily.LEGACY)).last
    assert items["isError"]
    assert "structuredContent" not in items
    link = items["content"][-1]
    assert link["mimeType"] == "application/json"
    assert (await whole(client, link["uri"])).startswith('{"rows":[{"id":0,"name":"]}\\""}')
    selector = client.runner.selector = Selector()
    try:
        found = await read(client, f"{link['uri']}?select={quote('rows[0].name')}")
    finally:
        await selector.close()
    assert found["text"] == '"]}\\""'


@http_only
async def test_a_result_above_a_lower_limit_is_stored_too(
    client: CallRunner, vault: LargeResultStore
) -> None:
    client.runner.spills = SpillRegistry(vault, Results(limit=64 << 10))
    items = (await client.call("text", {"bytes": 100_000})).last
    assert items["content"][1]["type"] == "resource_link"
    items = (await client.call("many", {"bytes": 100_000})).last
    assert [each["type"] for each in items["content"]] == ["text", "resource_link"]
    assert (await read(client, items["content"][1]["uri"]))["text"].startswith('{"resultType"')
    items = (await client.call("text", {"bytes": 1000})).last
    assert [each["type"] for each in items["content"]] == ["text", "text"]


@http_only
@pytest.mark.parametrize("tool", ["many", "escape"])
async def test_a_result_that_cannot_be_stored_is_an_error_and_leaves_nothing(
    client: CallRunner, vault: LargeResultStore, tool: str
) -> None:
    result = await client.call(tool, {"bytes": SIZE})
    assert isinstance(result.error, UpstreamInvalidError)
    await until(lambda: vault.quota.used == 0, "the space to be freed")


async def test_in_a_full_store_only_the_large_call_fails(
    client: CallRunner, vault: LargeResultStore
) -> None:
    pid = getattr(client.upstream, "pid", None)
    vault.quota.limit = 4 << 20
    result = await client.call("text", {"bytes": SIZE})
    assert "result store is full" in result.error.reason
    assert (await client.call("text", {"bytes": 10})).last["content"][-1]["text"] == "the end"
    assert getattr(client.upstream, "pid", None) == pid
    await until(lambda: vault.quota.used == 0, "the space to be freed")


@http_only
async def test_a_result_above_the_largest_size_is_an_error_with_its_fix(client: CallRunner) -> None:
    result = await client.call("text", {"bytes": 17 << 20})
    assert "request less" in result.error.reason
    assert (await client.call("text", {"bytes": 10})).last["content"][-1]["text"] == "the end"


@http_only
async def test_a_result_uri_expires(client: CallRunner) -> None:
    spills = client.runner.spills
    assert spills is not None
    items = (await client.call("text", {"bytes": SIZE})).last
    uri = items["content"][1]["uri"]
    assert "offset" in (await read(client, uri))["_meta"]["dev.toolbus/result"]
    spills._settings = spills._settings.model_copy(update={"ttl": -1.0})
    uri = (await client.call("text", {"bytes": SIZE})).last["content"][1]["uri"]
    gone = await client.call(uri, {"uri": uri}, method="resources/read")
    assert isinstance(gone.error, UnknownToolError)


@pytest.fixture
async def api(tmp_path: Path, vault: LargeResultStore) -> AsyncIterator[CallRunner]:
    """Run a server of an HTTP API."""
    rest = RestServer(tmp_path)
    try:
        rest.start()
        client = CallRunner()
        spills = client.runner.spills = SpillRegistry(vault, Results(largest=16 << 20))
        await client.open(
            OpenApiUpstream(
                Server(openapi=rest.document),
                {},
                {"token": "token-that-is-secret"},
                client.news,
                AT_LOOPBACK,
                spills,
            )
        )
        yield client
        await client.close()
        await spills.close(PATIENCE)
    finally:
        rest.kill()


async def test_a_large_answer_of_an_api_is_stored_and_read_part_by_part(api: CallRunner) -> None:
    preview, link = (await api.call("large", {"size": SIZE})).last["content"]
    assert "xxx" in preview["text"]
    assert (link["size"], link["mimeType"]) == (SIZE, "text/plain")
    assert await whole(api, link["uri"]) == "x" * SIZE


async def test_a_stored_answer_of_an_api_contains_no_credentials(api: CallRunner) -> None:
    (_, link) = (await api.call("indiscreet", {"size": SIZE})).last["content"]
    text = await whole(api, link["uri"])
    assert text.count("x" * 65_530) == SIZE // 65_536
    assert "token-that" not in text
    assert "is-secret" not in text


async def test_an_answer_of_an_api_above_the_operators_limit_fails_alone(api: CallRunner) -> None:
    answers = await api.call("large", {"size": (16 << 20) + 1})
    assert isinstance(answers.error, UpstreamInvalidError)
    assert (await api.call("large", {"size": 3})).text == "xxx"
