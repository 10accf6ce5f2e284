"""Tools that ingress adds to model requests, and the execution of the calls that models suggest."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness.builders.configurations import configuration_change, configured, listing_of
from harness.services.model_edge import DECLARED, SECRET, ModelEdge, OpenEdge, answers
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.contracts.model_calls import decode_model_call
from toolbus_common.nats.kv_bucket import Change

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
COUNT, EMBEDDINGS = "/v1/messages/count_tokens", "/v1/embeddings"
EXECUTE = "/v1/mcp/tools/execute"
OTHER = "tbk_other_a-third-secret-of-the-edge"
BUILT_IN = ("executeToolCode", "getToolDocs", "listToolFiles", "readToolFile", "searchTools")
OWN = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}
LINK = "x-toolbus-suggestion"
RESULT = b'{"content":[{"type":"text","text":"found"}]}'
Opened = Callable[..., Any]


@pytest.fixture
def edge(model_edge: OpenEdge) -> Opened:
    """Return a function that runs the edge with a server, a key, and these settings of the key."""

    @asynccontextmanager
    async def opened(injection: dict[str, int] | None = None, **terms: Any) -> AsyncIterator[Any]:
        async with model_edge(docs=answers(RESULT), toolbus=answers(RESULT)) as served:
            declare(served, injection or {}, **terms)
            yield served

    return opened


def declare(served: ModelEdge, injection: dict[str, int], **terms: Any) -> None:
    """Set the configuration and the tools of two servers."""

    def key(secret: str, **fields: Any) -> dict[str, Any]:
        fields = {"models": ["*"], "tools": ["docs__*"], **fields}
        return {"secret_hash": hash_of(key_digest_of(secret)), **fields}

    configuration = configured(
        **DECLARED,
        servers={
            "docs": {
                "url": "http://127.0.0.1:9/mcp",
                "tools": {"secret": {"hidden": True}, "old": {"alias": "new"}},
            },
            "other": {"url": "http://127.0.0.1:9/mcp"},
        },
        injection=injection,
        keys={"bot": key(SECRET, **terms), "other": key(OTHER)},
    )
    served.endpoint.directory.projection.apply_change(configuration_change(configuration, 2))
    listings = (
        listing_of("docs", "search", "old", "secret", "x" * 80),
        listing_of("other", "search"),
        listing_of("toolbus", *BUILT_IN),
    )
    for revision, listing in enumerate(listings, 1):
        served.endpoint.catalogue.apply(Change(listing.server, listing.encode(), revision))


def names(served: ModelEdge) -> list[str]:
    """Return the names of the tools of the last request, and check their number."""
    call = served.calls[-1]
    tools = json.loads(call.arguments).get("tools", [])
    assert decode_model_call(call.extra).tools == len(tools)
    return [(tool.get("function") or tool)["name"] for tool in tools]


async def test_the_tools_that_the_key_may_see_are_added_to_each_api(edge: Opened) -> None:
    async with edge(inject="tools") as served:
        for path in (CHAT, RESPONSES, MESSAGES, COUNT):
            assert (await served.send(path, {"model": "fast"})).status_code == 200
            found = names(served)
            assert found[:2] == ["docs__new", "docs__search"]
            assert [len(name) for name in found[2:]] == [64]
            tool = json.loads(served.calls[-1].arguments)["tools"][0]
            assert ("input_schema" in tool) is (path in (MESSAGES, COUNT))
            assert ("function" in tool) is (path == CHAT)
        await served.send(EMBEDDINGS, {"model": "fast"})
        assert names(served) == []


async def test_a_request_chooses_by_its_header_and_restricts_the_tools(edge: Opened) -> None:
    async with edge() as served:

        async def chosen(**headers: str) -> list[str]:
            body = {"model": "fast", "tools": [OWN]}
            assert (await served.send(CHAT, body, **headers)).status_code == 200
            return names(served)

        assert await chosen() == ["mine"]
        assert served.calls[-1].arguments == json.dumps({"model": "fast", "tools": [OWN]}).encode()
        assert await chosen(x_toolbus_inject="none") == ["mine"]
        assert await chosen(x_toolbus_inject="tools", x_toolbus_tools="docs__s*") == [
            "mine", "docs__search",
        ]  # fmt: skip
        assert await chosen(x_toolbus_inject="tools", x_toolbus_tools="") == ["mine"]
        assert await chosen(x_toolbus_inject="code") == ["mine", *BUILT_IN]
        assert await chosen(x_toolbus_inject="search") == ["mine", "getToolDocs", "searchTools"]
        refused = await served.send(CHAT, {"model": "fast"}, x_toolbus_inject="all")
        assert (refused.status_code, len(served.calls)) == (400, 6)
        assert "Use 'tools', 'code', 'search' or 'none'" in refused.json()["error"]["message"]


async def test_too_many_tools_and_clashes_are_refused_before_any_call(edge: Opened) -> None:
    async with edge({"tools": 3}, inject="tools") as served:
        assert (await served.send(CHAT, {"model": "fast"})).status_code == 200
        many = await served.send(CHAT, {"model": "fast", "tools": [OWN]})
        clash = {"type": "function", "function": {"name": "docs__search"}}
        twice = await served.send(CHAT, {"model": "fast", "tools": [clash]})
        large = await served.send(CHAT, {"model": "fast", "x": "y" * 65_400})
        deep = b'{"model":"fast","tools":[%b]}' % (b'{"a":' * 900 + b"1" + b"}" * 900)
        nested = await served.client.post(CHAT, content=deep, headers=served.headers())
        assert len(served.calls) <= 2
    assert [each.status_code for each in (many, twice, large)] == [400] * 3
    assert nested.status_code in (200, 400)
    assert "4 tools, and at most 3 are allowed" in many.json()["error"]["message"]
    assert "'docs__search', which Toolbus adds too" in twice.json()["error"]["message"]
    assert "bytes with the added tools" in large.json()["error"]["message"]


async def test_a_suggested_call_of_an_added_tool_is_executed_and_linked(edge: Opened) -> None:
    async with edge(inject="tools") as served:
        response = await served.send(CHAT, {"model": "fast"})
        for name in names(served):
            call = {"id": "call_1", "function": {"name": name, "arguments": "{}"}}
            headers = {LINK.replace("-", "_"): response.headers[LINK]}
            done = await served.send(EXECUTE, call, **headers)
            assert done.json() == {"role": "tool", "tool_call_id": "call_1", "content": "found"}
        suggested = served.calls[1:]
    assert [call.tool for call in suggested] == ["old", "search", "x" * 80]
    assert {call.suggested_by for call in suggested} == {served.calls[0].call_id}
    assert {call.suggested_by for call in served.calls[:1]} == {""}
    assert {call.parent_id for call in suggested} == {""}


async def test_a_link_of_another_key_or_a_forged_link_is_refused(edge: Opened) -> None:
    async with edge(inject="tools") as served:
        link = (await served.send(CHAT, {"model": "fast"})).headers[LINK]
        call_id, _, digest = link.partition(".")
        call = {"id": "c", "function": {"name": "docs__search", "arguments": "{}"}}
        forged = (call_id, f"{call_id}.", f"x{link}", f"{link}0", f"other.{digest}", "é" * 9)
        for each in forged:
            headers = served.headers() | {LINK: each.encode("latin-1")}
            refused = await served.client.post(EXECUTE, json=call, headers=headers)
            assert refused.status_code == 400, each
            assert "not from a model response to this key" in refused.json()["detail"]
        stolen = {"authorization": f"Bearer {OTHER}", LINK: link}
        assert (await served.client.post(EXECUTE, json=call, headers=stolen)).status_code == 400
        assert len(served.calls) == 1


async def test_a_response_without_tools_has_no_link(edge: Opened) -> None:
    async with edge() as served:
        assert LINK not in (await served.send(CHAT, {"model": "fast"})).headers
        assert LINK in (await served.send(CHAT, {"model": "fast", "tools": [OWN]})).headers


async def test_tool_search_of_an_injected_key_answers_without_stubs(edge: Opened) -> None:
    async with edge(inject="search") as served:
        call = {"id": "c", "function": {"name": "searchTools", "arguments": '{"query":"x"}'}}
        assert (await served.send(EXECUTE, call)).status_code == 200
        assert (await served.send(EXECUTE, call, x_toolbus_inject="code")).status_code == 200
    assert [call.terms for call in served.calls] == ['{"mode":"search"}', ""]


async def test_the_added_tools_follow_the_catalogue(edge: Opened) -> None:
    async with edge(inject="tools") as served:
        await served.send(CHAT, {"model": "fast"})
        listing = listing_of("docs", "fresh")
        served.endpoint.catalogue.apply(Change("docs", listing.encode(), 9))
        await served.send(CHAT, {"model": "fast"})
        assert names(served) == ["docs__fresh"]
