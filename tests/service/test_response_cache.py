"""Answers told again: to whom they may be told, for as long as they hold, and to nobody else."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.services.call_runner import AT_LOOPBACK, CallRunner, admitted
from harness.upstreams.large_result_server import LargeResultServer
from toolbus_common.contracts import CallResult, Identified, InputRequired, OutcomeClaim
from toolbus_common.errors import ServerDrainedError, UnknownToolError
from toolbus_executor.mcp_messages.result_mapping import CallOutcome
from toolbus_executor.results.response_cache import MOST_BYTES, MOST_ENTRIES, ResponseCache
from toolbus_executor.upstreams.mcp.http import HttpUpstream

TOOLS = {
    "text": {"cache": {"ttl": 60}},
    "rows": {"cache": {"ttl": 60, "scope": "public"}},
    "escape": {"cache": {"ttl": 60}},
}


@pytest.fixture
async def server() -> AsyncIterator[LargeResultServer]:
    made = LargeResultServer()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def bench(server: LargeResultServer) -> AsyncIterator[CallRunner]:
    """A runner over a server three of whose tools are declared to only read."""
    made = CallRunner(tools=TOOLS)
    await made.open(HttpUpstream(server.url, {}, made.news, AT_LOOPBACK))
    yield made
    await made.close()


async def test_a_repeated_call_is_answered_without_its_server_and_says_so(
    bench: CallRunner, server: LargeResultServer
) -> None:
    first = await bench.call("text", {"bytes": 1, "a": [1, {"b": 2, "c": 3}]})
    assert not bench.outcome.cached
    again = await bench.call("text", {"a": [1.0, {"c": 3, "b": 2}], "bytes": 1}, call_id="c2")
    assert again.last == first.last
    assert server.call_count == 1
    assert bench.outcome.cached
    assert (bench.outcome.charge, bench.outcome.call_id) == (5, "c2")


async def test_who_acts_for_somebody_is_not_told_what_was_answered_to_them_alone(
    bench: CallRunner, server: LargeResultServer
) -> None:
    for actors in ((), ("helper",), ("helper", "desk"), ()):
        identity = Identified(team="support", actors=actors)
        await bench.call("text", {"bytes": 1}, user="ann", identity=identity)
    assert server.call_count == 3


async def test_no_two_of_fifty_tenants_share_a_private_answer(
    bench: CallRunner, server: LargeResultServer
) -> None:
    # Names chosen so that no way of joining them into one text keeps them apart.
    tenants = [(f"s{'-x' * n}", f"{'x-' * (49 - n)}k") for n in range(50)]
    for _ in range(2):
        for customer, key in tenants:
            await bench.call("text", {"bytes": 1}, customer=customer, key=key)
    assert server.call_count == 50
    await bench.call("text", {"bytes": 1}, customer=tenants[0][0], key=tenants[1][1])
    assert server.call_count == 51


async def test_a_public_answer_is_everybodys(bench: CallRunner, server: LargeResultServer) -> None:
    for number in range(50):
        await bench.call("rows", {"bytes": 1}, customer=f"s{number}")
    assert server.call_count == 1


async def test_tools_and_arguments_are_kept_apart(
    bench: CallRunner, server: LargeResultServer
) -> None:
    for tool in ("text", "rows"):
        for arguments in ({}, {"bytes": 1}, {"bytes": "1"}, {"bytes": True}):
            await bench.call(tool, arguments)
    assert server.call_count == 8


@pytest.mark.parametrize(
    "more",
    [
        {"progress": True},
        {"log_level": "info"},
        {"extra": json.dumps({"_meta": {"a.b/c": 1}})},
        {"claim": OutcomeClaim(name="n", revision=1, digest="d")},
    ],
)
async def test_a_call_that_wants_more_than_an_answer_reaches_its_server(
    bench: CallRunner, server: LargeResultServer, more: dict[str, Any]
) -> None:
    for _ in range(2):
        await bench.call("text", {"bytes": 1}, **more)
    assert server.call_count == 2


async def test_a_tool_that_is_not_declared_so_reaches_its_server(
    bench: CallRunner, server: LargeResultServer
) -> None:
    for _ in range(2):
        await bench.call("many", {"bytes": 1})
    assert server.call_count == 2


async def test_what_failed_is_asked_anew(bench: CallRunner, server: LargeResultServer) -> None:
    for _ in range(2):
        assert (await bench.call("escape", {"bytes": 1})).error
    assert server.call_count == 2


async def test_what_is_held_back_or_drained_is_not_told_from_memory(bench: CallRunner) -> None:
    await bench.call("text", {"bytes": 1})
    bench.runner.uncallable = frozenset({("tools/call", "text")})
    assert isinstance((await bench.call("text", {"bytes": 1})).error, UnknownToolError)
    bench.runner.uncallable, bench.runner.drained = frozenset(), True
    assert isinstance((await bench.call("text", {"bytes": 1})).error, ServerDrainedError)


async def test_a_changed_definition_forgets_what_was_answered_under_the_old_one(
    bench: CallRunner, server: LargeResultServer
) -> None:
    cache = bench.runner.cache
    assert cache is not None
    await bench.call("text", {"bytes": 1})
    await bench.call("rows", {"bytes": 1})
    changed = [
        each.model_copy(update={"digest": "0" * 64}) if each.name == "text" else each
        for each in bench.listing.tools
    ]
    cache.learn(changed)
    assert len(cache) == 1
    await bench.call("text", {"bytes": 1})
    await bench.call("rows", {"bytes": 1})
    assert server.call_count == 3


def of(bench: CallRunner, clock: Any) -> ResponseCache:
    """A cache with a clock of its own."""
    made = ResponseCache(bench.declared.tools, clock)
    made.learn(bench.listing.tools)
    return made


async def test_an_answer_is_over_with_its_time_and_the_servers_word_only_shortens_it(
    bench: CallRunner,
) -> None:
    now = [0.0]
    cache = of(bench, lambda: now[0])

    def holds(raw: bytes, seconds: float, tool: str = "text") -> bool:
        key = cache.key_of(admitted(tool, {"raw": raw.decode()}))
        assert key is not None
        cache.store(key, raw, CallOutcome(CallResult(raw), is_error=False))
        now[0] += seconds
        return cache.find(key) == raw

    assert holds(b"{}", 59)
    assert not holds(b"{}", 60)
    assert holds(b'{"ttlMs":5000}', 4.9)
    assert not holds(b'{"ttlMs":5000}', 5)
    assert not holds(b'{"ttlMs":9000000}', 60)
    assert not holds(b'{"ttlMs":0}', 0)
    assert not holds(b'{"ttlMs":"long"}', 0)
    assert holds(b'{"cacheScope":"public"}', 1, "rows")
    assert not holds(b'{"cacheScope":"private"}', 1, "rows")
    assert holds(b'{"cacheScope":"private"}', 1)


async def test_only_whole_answers_are_kept(bench: CallRunner) -> None:
    cache = of(bench, lambda: 0.0)
    key = cache.key_of(admitted("text"))
    assert key is not None
    for ended in (
        CallOutcome(CallResult(b"{}"), is_error=True),
        CallOutcome(InputRequired(b"{}"), is_error=False),
        CallOutcome(CallResult(b"{}"), is_error=False, kept=1),
    ):
        cache.store(key, b"{}", ended)
    assert len(cache) == 0


async def test_what_is_kept_is_bounded_and_the_least_used_goes_first(bench: CallRunner) -> None:
    cache = of(bench, lambda: 0.0)
    keys = [cache.key_of(admitted("text", {"n": number})) for number in range(MOST_ENTRIES + 9)]
    for key in keys:
        assert key is not None
        cache.store(key, b"{}", CallOutcome(CallResult(b"{}"), is_error=False))
        assert cache.find(keys[0] or key) is not None  # used all the while
    assert len(cache) == MOST_ENTRIES
    assert keys[1] is not None
    assert cache.find(keys[1]) is None
    large = b'{"a":"%b"}' % (b"x" * 900_000)
    for key in keys[:40]:
        assert key is not None
        cache.store(key, large, CallOutcome(CallResult(large), is_error=False))
        assert cache.bytes <= MOST_BYTES
    assert 0 < len(cache) < 40
