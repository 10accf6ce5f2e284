"""What the executor decides without I/O: breaker, catalogue, messages."""

import json
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.contracts import Listing, ServerState
from toolbus_common.errors import UpstreamFaultError, UpstreamRefusedError
from toolbus_executor.resilience.circuit_breaker import Breaker, State
from toolbus_executor.servers.refresh_schedule import (
    MIN_SECONDS,
    refresh_pause,
    refreshed_elsewhere,
)
from toolbus_executor.transport.sse_parser import EventReader
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.listing import LONGEST_TTL, MOST_DROPPED, TOOLS, every_page, listed
from toolbus_executor.upstreams.mcp import messages

SCHEMA: dict[str, Any] = {"type": "object"}
SERVER = Described(
    "modern", "2026-07-28", capabilities={"tools": {}, "prompts": {}, "resources": {}}
)


def failed(breaker: Breaker, times: int, now: float = 0.0) -> Breaker:
    for _ in range(times):
        breaker.failed(now)
    return breaker


def test_a_breaker_opens_after_five_failures_in_a_row() -> None:
    breaker = failed(Breaker(), 4)
    assert breaker.admits(0.0)
    assert breaker.failed(0.0)
    assert not breaker.admits(1.0)


def test_a_success_forgets_the_failures_before_it() -> None:
    breaker = failed(Breaker(), 4)
    breaker.succeeded()
    assert not breaker.failed(0.0)


def test_after_the_pause_one_probe_goes_and_no_second() -> None:
    breaker = failed(Breaker(), 5)
    assert breaker.admits(5.0)
    assert breaker.state is State.HALF_OPEN
    assert not breaker.admits(5.0)


def test_a_probe_that_succeeds_closes_it_and_one_that_fails_pauses_longer() -> None:
    breaker = failed(Breaker(), 5)
    breaker.admits(5.0)
    assert breaker.failed(5.0)
    assert breaker.retry_at == 15.0
    breaker.admits(15.0)
    assert breaker.succeeded()
    assert breaker.state is State.CLOSED


@given(st.lists(st.sampled_from(["ok", "fail", "ask", "wait"]), max_size=60))
def test_an_open_breaker_never_admits_before_its_time(steps: list[str]) -> None:
    breaker, now = Breaker(), 0.0
    for step in steps:
        if step == "ok":
            breaker.succeeded()
        elif step == "fail":
            breaker.failed(now)
        elif step == "wait":
            now += 2.0
        elif breaker.state is State.OPEN:
            assert breaker.admits(now) == (now >= breaker.retry_at)


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
    ("bad", "why"),
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
async def test_a_bad_tool_drops_itself_with_a_reason_and_no_other(bad: Any, why: str) -> None:
    found = await listing([tool("good"), bad])
    assert [kept.name for kept in found.tools] == ["good"]
    assert why in next(iter(found.dropped.values()))


async def test_a_schema_nested_too_deeply_drops_its_tool() -> None:
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"properties": {"x": deep}}
    assert "deeper" in (await listing([tool(inputSchema=deep)])).dropped["a"]


async def test_a_definition_is_published_whole_and_in_the_order_of_names() -> None:
    strange = tool("a", icons=[{"src": "x"}], _meta={"k": 1}, annotations={"vendor": True})
    found = await listing([tool("b"), strange])
    assert [kept.name for kept in found.tools] == ["a", "b"]
    assert found.tools[0].definition == strange


async def test_a_list_of_prompts_that_fails_loses_no_tool() -> None:
    broken = UpstreamFaultError("It answered with nonsense.")
    found = await listing([tool("a")], **{"prompts/list": broken})
    assert [kept.name for kept in found.tools] == ["a"]
    assert found.failed == {"prompts/list": "It answered with nonsense."}
    assert found.dropped == {}


async def test_a_server_that_lists_nothing_but_nonsense_is_not_repeated_without_end() -> None:
    found = await listing([{"name": f"n{number}"} for number in range(1000)])
    assert len(found.dropped) == MOST_DROPPED + 1
    assert found.dropped["…"] == f"and {1000 - MOST_DROPPED} more"


async def test_resources_and_templates_are_known_by_their_uris() -> None:
    found = await listing(
        [],
        **{
            "resources/list": {"resources": [{"uri": "a://b", "name": "x"}, {"name": "y"}]},
            "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "a://{b}"}]},
        },
    )
    assert [kept.name for kept in found.resources] == ["a://b"]
    assert [kept.name for kept in found.templates] == ["a://{b}"]
    assert "uri" in found.dropped["#1"]


async def test_pages_are_followed_to_their_end_and_no_further() -> None:
    async def page(_method: str, cursor: str | None) -> dict[str, Any]:
        return {"tools": [tool("a" + (cursor or ""))], **({} if cursor else {"nextCursor": "2"})}

    assert [found["name"] for found in await every_page(TOOLS, page)] == ["a", "a2"]


async def test_a_listing_without_end_is_refused() -> None:
    async def page(_method: str, _cursor: str | None) -> dict[str, Any]:
        return {"tools": [], "nextCursor": "again"}

    with pytest.raises(UpstreamFaultError, match="pages"):
        await every_page(TOOLS, page)


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b'{"result":5}', b"\xff", b"[" * 5000])
def test_nonsense_from_an_upstream_is_a_fault_and_nothing_else(text: bytes) -> None:
    with pytest.raises(UpstreamFaultError):
        messages.result_of(messages.read(text))


def test_an_upstreams_error_is_told_in_its_own_words_but_not_all_of_them() -> None:
    error = {"code": -5, "message": "m" * 5000, "data": {"kept": [1]}}
    text = json.dumps({"id": 1, "error": error}).encode()
    with pytest.raises(UpstreamRefusedError) as caught:
        messages.result_of(messages.read(text))
    assert len(caught.value.reason) < 600
    assert caught.value.data == {"upstream_code": -5, "upstream_data": {"kept": [1]}}


@given(st.lists(st.text(alphabet="abc \n", max_size=8), min_size=1, max_size=6), st.data())
def test_events_are_the_same_however_the_stream_is_cut(
    texts: list[str], data: st.DataObject
) -> None:
    events = [json.dumps(text).encode() for text in texts]
    stream = b"".join(
        b"event: message\r\nid: 1\r\ndata: %b\r\n\r\n: keep\r\n\r\n" % e for e in events
    )
    cut = data.draw(st.integers(0, len(stream)))
    reader = EventReader()
    assert [*reader.feed(stream[:cut]), *reader.feed(stream[cut:])] == events


def test_a_stream_says_where_it_can_be_gone_on_with_and_when() -> None:
    reader = EventReader()
    assert not [*reader.feed(b"id: 7\nretry: 250\ndata: \n\n")]
    assert (reader.last_id, reader.retry) == (b"7", 0.25)


def test_an_event_has_the_name_it_was_given() -> None:
    reader = EventReader()
    assert [(reader.name, data) for data in reader.feed(b"event: endpoint\ndata: /x\n\n")] == [
        ("endpoint", b"/x")
    ]


async def test_the_least_of_a_servers_hints_is_how_long_its_lists_are_good() -> None:
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


@given(st.integers(0, LONGEST_TTL), st.floats(-1e6, 1e6))
def test_lists_are_never_listed_anew_before_they_are_old_nor_all_the_time(
    ttl: int, ago: float
) -> None:
    result = Listing(server="s", state=ServerState.READY, ttl_ms=ttl, listed_at=time() - ago)
    pause = refresh_pause(result)
    if ttl == 0:
        assert pause is None, "nobody asked to be asked for ever"
    else:
        assert pause is not None
        assert pause >= MIN_SECONDS
        assert pause * 1000 >= (result.remaining_ms(time()) or 0) - 1


def test_a_server_that_says_nothing_of_time_is_listed_when_something_happens() -> None:
    assert refresh_pause(Listing(server="s", state=ServerState.READY)) is None


def test_what_another_replica_listed_is_taken_while_it_is_good() -> None:
    result = Listing(server="s", state=ServerState.READY, ttl_ms=60_000, listed_at=time())
    assert refreshed_elsewhere(result)
    assert not refreshed_elsewhere(result.model_copy(update={"listed_at": time() - 61}))
    assert not refreshed_elsewhere(result.model_copy(update={"state": ServerState.STALE}))
    assert not refreshed_elsewhere(None)
