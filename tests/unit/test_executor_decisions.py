"""What the executor decides without I/O: breaker, catalogue, wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.contracts import CallAdmitted, Era
from toolbus_common.errors import UpstreamFaultError
from toolbus_executor import wire
from toolbus_executor.breaker import Breaker, State
from toolbus_executor.catalogue import all_tools, listing_of
from toolbus_executor.events import EventReader
from toolbus_executor.upstream import Described

SCHEMA: dict[str, Any] = {"type": "object"}
SERVER = Described("modern", "2026-07-28")


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


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"inputSchema": SCHEMA}, "no name"),
        (tool("has space"), "characters"),
        (tool("x" * 97), "length"),
        ({"name": "b"}, "inputSchema"),
        (tool("b", execution={"taskSupport": "required"}), "task"),
        (tool("b", description="d" * 70_000), "too large"),
        (tool("good"), "twice"),
        ("nonsense", "no name"),
    ],
)
def test_a_bad_tool_drops_itself_with_a_reason_and_no_other(bad: Any, why: str) -> None:
    listing = listing_of("s", SERVER, [tool("good"), bad])
    assert [kept.name for kept in listing.tools] == ["good"]
    assert why in next(iter(listing.dropped.values()))


def test_a_schema_nested_too_deeply_drops_its_tool() -> None:
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"properties": {"x": deep}}
    assert "deeper" in listing_of("s", SERVER, [tool(inputSchema=deep)]).dropped["a"]


def test_a_definition_is_published_whole_and_in_the_order_of_names() -> None:
    strange = tool("a", icons=[{"src": "x"}], _meta={"k": 1}, annotations={"vendor": True})
    listing = listing_of("s", SERVER, [tool("b"), strange])
    assert [kept.name for kept in listing.tools] == ["a", "b"]
    assert listing.tools[0].definition == strange


async def test_pages_are_followed_to_their_end_and_no_further() -> None:
    async def page(cursor: str | None) -> dict[str, Any]:
        return {"tools": [tool("a" + (cursor or ""))], **({} if cursor else {"nextCursor": "2"})}

    assert [found["name"] for found in await all_tools(page)] == ["a", "a2"]


async def test_a_listing_without_end_is_refused() -> None:
    async def page(_cursor: str | None) -> dict[str, Any]:
        return {"tools": [], "nextCursor": "again"}

    with pytest.raises(UpstreamFaultError, match="pages"):
        await all_tools(page)


def test_a_modern_caller_gets_a_result_type_from_a_legacy_answer() -> None:
    for raw in (b'{"content":[]}', b"{}", b'{ "content" : [] }'):
        body, _ = wire.tool_result(raw, Era.MODERN)
        assert json.loads(body) == {"resultType": "complete", **json.loads(raw)}


def test_a_legacy_caller_gets_no_modern_member_and_every_other_byte() -> None:
    raw = b'{"resultType":"complete","ttlMs":5,"content":[{"x":1.50,"n":12345678901234567890123}]}'
    body, _ = wire.tool_result(raw, Era.LEGACY)
    assert body == b'{"content":[{"x":1.50,"n":12345678901234567890123}]}'


def test_a_result_nobody_needs_to_change_passes_byte_by_byte() -> None:
    raw = b'{ "resultType":"complete", "content":[] , "x-unknown": 1e5 }'
    assert wire.tool_result(raw, Era.MODERN)[0] == raw


@pytest.mark.parametrize("kind", ["input_required", "task", "strange"])
def test_a_result_that_is_not_final_is_a_named_fault(kind: str) -> None:
    with pytest.raises(UpstreamFaultError, match=kind):
        wire.tool_result(json.dumps({"resultType": kind}).encode(), Era.MODERN)


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b'{"result":5}', b"\xff", b"[" * 5000])
def test_nonsense_from_an_upstream_is_a_fault_and_nothing_else(text: bytes) -> None:
    with pytest.raises(UpstreamFaultError):
        wire.result_of(wire.read(text))


@given(st.binary(max_size=80))
def test_no_bytes_from_an_upstream_do_anything_but_answer_or_fault(text: bytes) -> None:
    try:
        wire.tool_result(wire.result_of(wire.read(text)), Era.MODERN)
    except UpstreamFaultError:
        return


def test_an_upstreams_error_is_told_with_its_own_sentence_but_not_all_of_it() -> None:
    text = json.dumps({"id": 1, "error": {"code": -5, "message": "m" * 5000}}).encode()
    with pytest.raises(UpstreamFaultError) as caught:
        wire.result_of(wire.read(text))
    assert len(caught.value.reason) < 600
    assert caught.value.data["upstream_code"] == -5


def test_arguments_reach_the_upstream_as_they_are() -> None:
    call = CallAdmitted(
        call_id="c",
        reply_to="r",
        server="s",
        tool='odd"name',
        scope="d",
        key="k",
        era=Era.MODERN,
        deadline=0.0,
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        progress=True,
        arguments=b'{"n":123456789012345678901234567890}',
    )
    body = wire.call_body(call, 7, modern=True)
    told = json.loads(body)
    assert call.arguments in body
    assert told["params"]["name"] == 'odd"name'
    assert told["params"]["_meta"]["progressToken"] == 7
    assert told["params"]["_meta"]["traceparent"][3:35] == "a" * 32


@pytest.mark.parametrize("name", ["plain", "with space", "ä", " lead", "=?base64?x?=", ""])
def test_a_name_survives_its_header(name: str) -> None:
    from toolbus_ingress.eras import decoded  # noqa: PLC0415 - the other side of the same rule

    assert decoded(wire.header_value(name)) == name


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
