"""Listing an upstream server: invalid entries, pages, time to live."""

from typing import Any

import pytest

from toolbus_common.contracts import Listing
from toolbus_common.errors import UpstreamInvalidError, UpstreamRefusedError
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.listing import LONGEST_TTL, MAX_DROPPED, TOOLS, every_page, listed

SCHEMA: dict[str, Any] = {"type": "object"}

SERVER = Described(
    "modern", "2026-07-28", capabilities={"tools": {}, "prompts": {}, "resources": {}}
)


def tool(name: Any = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": SCHEMA, **more}


async def listing(tools: Any, **others: Any) -> Listing:
    async def page(method: str, _cursor: str | None) -> dict[str, Any]:
        found: dict[str, Any] | Exception | None = {"tools/list": {"tools": tools}, **others}.get(
            method
        )
        if found is None:
            raise UpstreamRefusedError("Method not found", upstream_code=-32601)
        if isinstance(found, Exception):
            raise found
        return found

    return await listed("s", SERVER, page)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"inputSchema": SCHEMA}, "no name"),
        (tool("has\nbreak"), "characters"),
        (tool("turned \u202e"), "characters"),
        (tool("x" * 201), "characters"),
        (tool(""), "characters"),
        ({"name": "b"}, "inputSchema"),
        (tool("b", description="d" * (6 << 20)), "servers.s.list_limit"),
        (tool("good"), "twice"),
        ("nonsense", "no name"),
    ],
)
async def test_an_invalid_tool_is_dropped_with_a_reason_and_the_others_stay(
    bad: Any, reason: str
) -> None:
    found = await listing([tool("good"), bad])
    assert [each.name for each in found.tools] == ["good"]
    assert reason in next(iter(found.dropped.values()))


async def test_a_schema_nested_too_deeply_drops_its_tool() -> None:
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"properties": {"x": deep}}
    assert "deeper" in (await listing([tool(inputSchema=deep)])).dropped["a"]


async def test_definitions_are_published_unchanged_and_sorted_by_name() -> None:
    strange = tool("a", icons=[{"src": "x"}], _meta={"k": 1}, annotations={"vendor": True})
    found = await listing([tool("b"), strange])
    assert [each.name for each in found.tools] == ["a", "b"]
    assert found.tools[0].definition == strange


async def test_a_failed_list_of_prompts_does_not_lose_tools() -> None:
    broken = UpstreamInvalidError("It answered with nonsense.")
    found = await listing([tool("a")], **{"prompts/list": broken})
    assert [each.name for each in found.tools] == ["a"]
    assert found.failed == {"prompts/list": "It answered with nonsense."}
    assert found.dropped == {}


async def test_the_reasons_for_dropped_tools_are_bounded() -> None:
    found = await listing([{"name": f"n{number}"} for number in range(1000)])
    assert len(found.dropped) == MAX_DROPPED + 1
    assert found.dropped["…"] == f"and {1000 - MAX_DROPPED} more"


async def test_resources_and_templates_are_named_by_their_uris() -> None:
    found = await listing(
        [],
        **{
            "resources/list": {"resources": [{"uri": "a://b", "name": "x"}, {"name": "y"}]},
            "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "a://{b}"}]},
        },
    )
    assert [each.name for each in found.resources] == ["a://b"]
    assert [each.name for each in found.templates] == ["a://{b}"]
    assert "uri" in found.dropped["#1"]


async def test_pages_are_followed_to_the_last_one() -> None:
    async def page(_method: str, cursor: str | None) -> dict[str, Any]:
        return {"tools": [tool("a" + (cursor or ""))], **({} if cursor else {"nextCursor": "2"})}

    assert [found["name"] for found in await every_page(TOOLS, page)] == ["a", "a2"]


async def test_an_endless_listing_is_rejected() -> None:
    async def page(_method: str, _cursor: str | None) -> dict[str, Any]:
        return {"tools": [], "nextCursor": "again"}

    with pytest.raises(UpstreamInvalidError, match="pages"):
        await every_page(TOOLS, page)


async def test_the_shortest_ttl_of_a_servers_lists_applies() -> None:
    def hinted(kind: str, ttl: Any) -> dict[str, Any]:
        return {kind: [], "ttlMs": ttl, "cacheScope": "public"}

    prompts, resources = hinted("prompts", 900), hinted("resources", 10**30)
    found = await listing([tool()], **{"prompts/list": prompts, "resources/list": resources})
    assert found.ttl_ms == 900
    assert found.listed_at > 0
    zero = await listing([tool()], **{"prompts/list": hinted("prompts", 0)})
    assert (zero.ttl_ms, zero.listed_at) == (0, 0.0)
    silent = await listing([tool()], **{"prompts/list": hinted("prompts", "soon")})
    assert (silent.ttl_ms, silent.listed_at) == (None, 0.0)
    endless = await listing([tool()], **{"resources/list": resources})
    assert endless.ttl_ms == LONGEST_TTL
