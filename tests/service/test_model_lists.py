"""Lists of models that executor reads from providers and publishes in the catalogue."""

from typing import Any

import pytest

from harness.apis import cloud_providers as clouds
from harness.apis.model_provider import ModelProvider, ModelRequest
from harness.services.model_gateway import ModelGateway, provider
from harness.waits import until_async
from toolbus_common.contracts import Listing
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CATALOGUE
from toolbus_executor.providers import http
from toolbus_executor.providers.model_lists import publisher

ITSELF: dict[str, Any] = {"models": ()}  # the provider lists its models itself


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the lists often."""
    monkeypatch.setattr(publisher, "REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(publisher, "FIRST_SECONDS", 0.02)


def lists(*names: str, status: int = 200) -> Any:
    async def answer(request: ModelRequest) -> None:
        data = [{"id": name} for name in names]
        models = [{"name": f"models/{name}"} for name in names]
        await request.reply({"data": data, "models": models}, status)

    return answer


async def published(operator: Bus) -> tuple[str, ...] | None:
    entry = await (await operator.bucket(CATALOGUE)).get("p")
    return Listing.decode(entry.value).models if entry and entry.value else None


async def until_published(operator: Bus, *names: str) -> None:
    async def are() -> bool:
        return await published(operator) == names

    await until_async(are, f"the list {names}")


async def until_removed(operator: Bus) -> None:
    async def is_gone() -> bool:
        return await published(operator) is None

    await until_async(is_gone, "no list")


async def count(model: ModelProvider, more: int = 3) -> None:
    """Wait until the provider was asked again this many times."""
    asked = len(model.requests) + more

    async def is_asked() -> bool:
        return len(model.requests) >= asked

    await until_async(is_asked, "more requests")


@pytest.mark.parametrize(
    ("fields", "path", "header"),
    [
        ({"kind": "openai", "key": "a-key-of-it"}, "/v1/models", "authorization"),
        ({"kind": "anthropic", "key": "a-key-of-it"}, "/v1/models?limit=1000", "x-api-key"),
        ({"kind": "gemini", "key": "a-key-of-it"}, "/v1/models?pageSize=1000", "x-goog-api-key"),
    ],
)
async def test_the_list_of_each_kind_is_published_and_followed(
    gateway: ModelGateway,
    operator: Bus,
    model: ModelProvider,
    fields: dict[str, Any],
    path: str,
    header: str,
) -> None:
    model.answer = lists("one", "two")
    async with gateway.executor(p=provider(model, **ITSELF, **fields)):
        await until_published(operator, "one", "two")
        assert model.requests[0].path == path
        assert "a-key-of-it" in model.requests[0].headers[header]
        model.answer = lists("three")
        await until_published(operator, "three")
        assert [row["tools"] for row in await gateway.rows()] == [1]


LISTED = {
    "vertex": ("claude-opus-4-6", "gemini-2.5-flash", "gemini-2.5-pro"),
    "bedrock": ("amazon.nova-lite-v1:0", "eu.anthropic.claude-1", "eu.anthropic.claude-2"),
}


@pytest.mark.parametrize("kind", ["vertex", "bedrock"])
async def test_the_lists_of_clouds_are_read_page_by_page(
    gateway: ModelGateway, operator: Bus, model: ModelProvider, kind: str
) -> None:
    model.answer = clouds.bedrock_lists if kind == "bedrock" else clouds.vertex_lists
    async with gateway.executor(p=clouds.cloud_provider(kind, model, **ITSELF)):
        await until_published(operator, *LISTED[kind])
    asked = [each for each in model.requests if not each.path.endswith("/token")]
    for request in asked:
        if kind == "bedrock":
            clouds.check_signature(request)
        else:
            assert request.path.startswith("/v1beta1/publishers/")
            assert request.headers["authorization"] == f"Bearer {clouds.TOKEN}"


async def test_bedrock_is_asked_with_its_api_key(
    gateway: ModelGateway, operator: Bus, model: ModelProvider
) -> None:
    model.answer = clouds.bedrock_lists
    own = {"credentials": {}, "key": "a-key-of-bedrock"}
    async with gateway.executor(p=clouds.cloud_provider("bedrock", model, **ITSELF, **own)):
        await until_published(operator, *LISTED["bedrock"])
    assert model.requests[0].headers["authorization"] == "Bearer a-key-of-bedrock"


async def test_a_list_without_an_end_is_cut(
    gateway: ModelGateway, operator: Bus, model: ModelProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(request: ModelRequest) -> None:
        profile = {"inferenceProfileId": f"m{len(model.requests):04}"}
        profiles = [profile] if "profiles" in request.path else []
        await request.reply({"inferenceProfileSummaries": profiles, "nextToken": "more"})

    model.answer = endless
    monkeypatch.setattr(publisher, "REFRESH_SECONDS", 600.0)
    monkeypatch.setattr(publisher, "PROBE_SECONDS", 60.0)  # for 40 requests on a busy machine
    async with gateway.executor(p=clouds.cloud_provider("bedrock", model, **ITSELF)):

        async def is_published() -> bool:
            return await published(operator) is not None

        await until_async(is_published, "the list")
        assert len(await published(operator) or ()) == publisher.MAX_PAGES
    assert len(model.requests) == 2 * publisher.MAX_PAGES


async def test_a_list_at_another_host_is_requested_over_the_egress_check(
    gateway: ModelGateway, operator: Bus, model: ModelProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [f"http://localhost:{model.url.split(':')[-1]}/models?page=1"]
    monkeypatch.setattr(http, "list_urls_of", lambda _: tuple(other))
    model.answer = lists("one")
    async with gateway.executor(p=provider(model, **ITSELF)):
        await until_published(operator, "one")
        assert model.requests[0].path == "/v1/models?page=1"
        assert model.requests[0].headers["host"].startswith("localhost:")


async def test_a_query_of_the_address_is_kept(
    gateway: ModelGateway, operator: Bus, model: ModelProvider
) -> None:
    model.answer = lists("one")
    url = f"{model.url}?api-version=2"
    async with gateway.executor(p=provider(model, **ITSELF, url=url, kind="anthropic")):
        await until_published(operator, "one")
    assert model.requests[0].path == "/v1/models?api-version=2&limit=1000"


async def test_a_provider_that_fails_keeps_its_last_list_and_is_still_called(
    gateway: ModelGateway, operator: Bus, model: ModelProvider
) -> None:
    async def hostile(request: ModelRequest) -> None:
        if request.path == "/v1/models":
            await request.reply(b"[" * 100_000)
        else:
            message = {"role": "assistant", "content": "Hello"}
            await request.reply({"choices": [{"index": 0, "message": message}]})

    model.answer = lists("one")
    async with gateway.executor(p=provider(model, **ITSELF)):
        await until_published(operator, "one")
        for answer in (lists("two", status=503), lists("two", status=404), hostile):
            model.answer = answer
            await count(model, 6)  # more failures than the circuit breaker permits
            assert await published(operator) == ("one",)
        assert [row["breaker"] for row in await gateway.rows()] == ["closed"]
        assert b"Hello" in (await gateway.call("1")).body
    async with gateway.executor(p=provider(model, **ITSELF)):
        await count(model)
        assert await published(operator) == ("one",), "kept over a restart"
        model.answer = lists("two")
        await until_published(operator, "two")


async def test_an_entry_ends_with_its_provider_its_address_and_with_configured_models(
    gateway: ModelGateway, operator: Bus, model: ModelProvider
) -> None:
    model.answer = lists("one")
    away = provider(model, **ITSELF, url="http://127.0.0.1:9/v1")
    async with gateway.executor(p=provider(model, **ITSELF)):
        await until_published(operator, "one")
        await gateway.configure(p=away)
        await until_removed(operator)
        await gateway.configure(p=provider(model, **ITSELF))
        await until_published(operator, "one")
        await gateway.configure(p=provider(model))
        await until_removed(operator)
        await gateway.configure(p=provider(model, **ITSELF))
        await until_published(operator, "one")
        await gateway.configure()
        await until_removed(operator)
        await gateway.configure(p=provider(model, **ITSELF))
        await until_published(operator, "one")
    async with gateway.executor(other=provider(model)):
        await until_removed(operator)
