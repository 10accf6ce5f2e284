"""Cached responses: their scope, their lifetime and their limits."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.services.call_runner import AT_LOOPBACK, CallRunner, admitted
from harness.upstreams.large_result_server import LargeResultServer
from toolbus_common.contracts import CallResult, Identified, InputRequired, OutcomeClaim
from toolbus_common.errors import ServerDrainedError, UnknownToolError
from toolbus_executor.mcp_messages.result_mapping import CallOutcome
from toolbus_executor.results.response_cache import MAX_BYTES, MAX_ENTRIES, ResponseCache
from toolbus_executor.upstreams.mcp.http import HttpUpstream

TOOLS = {
    "text": {"cache": {"ttl": 60}},
    "rows": {"cache": {"ttl": 60, "scope": "public"}},
    "escape": {"cache": {"ttl": 60}},
}


@pytest.fixture
async def client(result_server: LargeResultServer) -> AsyncIterator[CallRunner]:
    """Run a server with three tools configured as cacheable."""
    client = CallRunner(tools=TOOLS)
    await client.open(HttpUpstream(result_server.url, {}, client.news, AT_LOOPBACK))
    yield client
    await client.close()


async def test_a_repeated_call_is_answered_from_the_cache_and_marked(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    first = await client.call("text", {"bytes": 1, "a": [1, {"b": 2, "c": 3}]})
    assert not client.outcome.cached
    again = await client.call("text", {"a": [1.0, {"c": 3, "b": 2}], "bytes": 1}, call_id="c2")
    assert again.last == first.last
    assert result_server.call_count == 1
    assert client.outcome.cached
    assert (client.outcome.charge, client.outcome.call_id) == (5, "c2")


async def test_a_private_response_is_not_shared_with_actors_for_the_same_user(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    for actors in ((), ("helper",), ("helper", "desk"), ()):
        identity = Identified(team="support", actors=actors)
        await client.call("text", {"bytes": 1}, user="ann", identity=identity)
    assert result_server.call_count == 3


async def test_no_two_of_fifty_tenants_share_a_private_response(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    # Names chosen so that a plain concatenation would be ambiguous.
    tenants = [(f"s{'-x' * n}", f"{'x-' * (49 - n)}k") for n in range(50)]
    for _ in range(2):
        for customer, key in tenants:
            await client.call("text", {"bytes": 1}, customer=customer, key=key)
    assert result_server.call_count == 50
    await client.call("text", {"bytes": 1}, customer=tenants[0][0], key=tenants[1][1])
    assert result_server.call_count == 51


async def test_a_public_response_is_shared(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    for number in range(50):
        await client.call("rows", {"bytes": 1}, customer=f"s{number}")
    assert result_server.call_count == 1


async def test_responses_are_cached_by_tool_and_arguments(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    for tool in ("text", "rows"):
        for arguments in ({}, {"bytes": 1}, {"bytes": "1"}, {"bytes": True}):
            await client.call(tool, arguments)
    assert result_server.call_count == 8


@pytest.mark.parametrize(
    "more",
    [
        {"progress": True},
        {"log_level": "info"},
        {"extra": json.dumps({"_meta": {"a.b/c": 1}})},
        {"claim": OutcomeClaim(name="n", revision=1, digest="d")},
    ],
)
async def test_a_call_that_requires_more_than_a_response_reaches_its_server(
    client: CallRunner, result_server: LargeResultServer, more: dict[str, Any]
) -> None:
    for _ in range(2):
        await client.call("text", {"bytes": 1}, **more)
    assert result_server.call_count == 2


async def test_a_tool_without_a_cache_reaches_its_server(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    for _ in range(2):
        await client.call("many", {"bytes": 1})
    assert result_server.call_count == 2


async def test_a_failure_is_not_cached(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    for _ in range(2):
        assert (await client.call("escape", {"bytes": 1})).error
    assert result_server.call_count == 2


async def test_a_quarantined_tool_or_a_drained_server_is_not_answered_from_the_cache(
    client: CallRunner,
) -> None:
    await client.call("text", {"bytes": 1})
    client.runner.uncallable = frozenset({("tools/call", "text")})
    assert isinstance((await client.call("text", {"bytes": 1})).error, UnknownToolError)
    client.runner.uncallable, client.runner.drained = frozenset(), True
    assert isinstance((await client.call("text", {"bytes": 1})).error, ServerDrainedError)


async def test_a_changed_definition_invalidates_its_cached_responses(
    client: CallRunner, result_server: LargeResultServer
) -> None:
    cache = client.runner.cache
    assert cache is not None
    await client.call("text", {"bytes": 1})
    await client.call("rows", {"bytes": 1})
    changed = [
        each.model_copy(update={"digest": "0" * 64}) if each.name == "text" else each
        for each in client.listing.tools
    ]
    cache.learn(changed)
    assert len(cache) == 1
    await client.call("text", {"bytes": 1})
    await client.call("rows", {"bytes": 1})
    assert result_server.call_count == 3


def of(client: CallRunner, clock: Any) -> ResponseCache:
    """Return a cache with a clock of its own."""
    cache = ResponseCache(client.declared.tools, clock)
    cache.learn(client.listing.tools)
    return cache


async def test_a_response_expires_and_the_server_can_only_shorten_its_lifetime(
    client: CallRunner,
) -> None:
    now = [0.0]
    cache = of(client, lambda: now[0])

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


async def test_only_complete_responses_are_cached(client: CallRunner) -> None:
    cache = of(client, lambda: 0.0)
    key = cache.key_of(admitted("text"))
    assert key is not None
    for ended in (
        CallOutcome(CallResult(b"{}"), is_error=True),
        CallOutcome(InputRequired(b"{}"), is_error=False),
        CallOutcome(CallResult(b"{}"), is_error=False, kept=1),
    ):
        cache.store(key, b"{}", ended)
    assert len(cache) == 0


async def test_the_cache_is_limited_and_evicts_the_least_recently_used(client: CallRunner) -> None:
    cache = of(client, lambda: 0.0)
    keys = [cache.key_of(admitted("text", {"n": number})) for number in range(MAX_ENTRIES + 9)]
    for key in keys:
        assert key is not None
        cache.store(key, b"{}", CallOutcome(CallResult(b"{}"), is_error=False))
        assert cache.find(keys[0] or key) is not None  # used all the time
    assert len(cache) == MAX_ENTRIES
    assert keys[1] is not None
    assert cache.find(keys[1]) is None
    large = b'{"a":"%b"}' % (b"x" * 900_000)
    for key in keys[:40]:
        assert key is not None
        cache.store(key, large, CallOutcome(CallResult(large), is_error=False))
        assert cache.bytes <= MAX_BYTES
    assert 0 < len(cache) < 40
