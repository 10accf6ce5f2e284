"""Isolation of keys at a server: separate state for each principal, on every kind of server."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from conformance.upstream import TESTS, FixtureServer
from harness.services.executor_pair import COMMAND, ExecutorPair, Stateful
from harness.waits import until, until_async
from toolbus_common.config import Server
from toolbus_common.contracts import InputRequired, ProtocolFamily, ServerNotification
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings

pytestmark = pytest.mark.usefixtures("lasting_leases")
FUNCTIONS = """
kept = []
def remember(text: str) -> str:
    kept.append(text)
    return text
def recall() -> str:
    return ",".join(kept)
"""
FIXTURE = (sys.executable, "-m", "fixture_server", "--stdio", "--family", "legacy")
WATCHED = "test://watched-resource"
ENOUGH = 12  # calls, of which each executor certainly gets some
FAMILIES: dict[str, dict[str, Any]] = {
    "modern": {"family": ProtocolFamily.MODERN},
    "handshake": {"family": ProtocolFamily.LEGACY, "session": "c1"},
}


@pytest.fixture
def start_executors(settings: Settings, operator: Bus) -> Any:
    """Return a function that starts executors."""
    return lambda executors=2: ExecutorPair(settings, operator, executors)


@pytest.fixture
async def pair(start_executors: Any) -> AsyncIterator[ExecutorPair]:
    """Run two executors."""
    async with start_executors().running() as executors:
        yield executors


async def has_running_calls(pair: ExecutorPair, many: int) -> bool:
    """Return whether this number of sessions have a running call."""
    (row,) = await pair.rows()
    return [each["in_flight"] > 0 for each in row["sessions"]["sessions"]].count(True) == many


async def keep_apart(pair: ExecutorPair, **more: Any) -> None:
    """Check that two keys have separate state, whichever executor handles each call."""
    for number in range(ENOUGH):
        await pair.say("ann", "remember", arguments={"text": f"a{number}"}, **more)
        await pair.say("bob", "remember", arguments={"text": f"b{number}"}, **more)
    for key in ("ann", "bob"):
        whole = ",".join(f"{key[0]}{number}" for number in range(ENOUGH))
        result = await asyncio.gather(*(pair.say(key, "recall", **more) for _ in range(ENOUGH)))
        assert set(result) == {whole}
    assert await pair.say("eve", "recall", **more) == ""


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_process_belongs_to_one_key(pair: ExecutorPair, family: str) -> None:
    await pair.declare(s=Server(command=COMMAND))
    await pair.listed()
    await keep_apart(pair, **FAMILIES[family])


@pytest.mark.parametrize("kind", ["http", "sse"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_a_session_over_http_belongs_to_one_key(
    pair: ExecutorPair, tmp_path: Path, family: str, kind: str
) -> None:
    with Stateful(tmp_path, kind).running() as server:
        declared = Server(sse=server.url) if kind == "sse" else Server(url=server.url)
        await pair.declare(s=declared)
        await pair.listed()
        await keep_apart(pair, **FAMILIES[family])


async def test_a_server_without_session_ids_serves_every_caller_over_one_connection(
    pair: ExecutorPair, tmp_path: Path
) -> None:
    with Stateful(tmp_path, "stateless").running() as server:
        await pair.declare(s=Server(url=server.url))
        await pair.listed()
        for key in ("ann", "bob"):
            await pair.say(key, "remember", arguments={"text": key})
            assert await pair.say(key, "recall") == "", "without a session there is no state"
        (row,) = await pair.rows()
        assert row["sessions"]["open"] == 0


async def test_python_functions_have_separate_state_for_each_key(
    pair: ExecutorPair, tmp_path: Path
) -> None:
    (tmp_path / "stateful_functions.py").write_text(FUNCTIONS)
    functions = ("stateful_functions:remember", "stateful_functions:recall")
    await pair.declare(s=Server(python=functions, cwd=str(tmp_path)))
    await pair.listed()
    await keep_apart(pair)


async def test_a_server_configured_as_shared_is_shared(pair: ExecutorPair) -> None:
    await pair.declare(s=Server(command=COMMAND, sessions="shared"))
    await pair.listed()
    await pair.say("ann", "remember", arguments={"text": "a"})
    assert await pair.say("bob", "recall") == "a"


async def test_with_client_sessions_each_session_has_its_own_state(pair: ExecutorPair) -> None:
    await pair.declare(s=Server(command=COMMAND, sessions="client"))
    await pair.listed()
    mine = {"family": ProtocolFamily.LEGACY}
    for session in ("", "c1", "c2"):
        fields = {"text": session or "none"}
        await pair.say("ann", "remember", arguments=fields, session=session, **mine)
    assert await pair.say("ann", "recall", session="c1", **mine) == "c1"
    assert await pair.say("ann", "recall", session="c2", **mine) == "c2"
    assert await pair.say("ann", "recall", **mine) == "none"
    assert await pair.say("bob", "recall", session="c1", **mine) == "", (
        "its id is not valid for another key"
    )


async def test_a_recreated_key_of_the_same_name_is_another_principal(pair: ExecutorPair) -> None:
    await pair.declare(s=Server(command=COMMAND))
    await pair.listed()
    await pair.say("bot", "remember", arguments={"text": "old"})
    assert await pair.say("bot", "recall") == "old"
    pair.secrets["bot"] = "made again"
    assert await pair.say("bot", "recall") == ""


async def test_at_the_limit_the_least_recently_used_session_ends(start_executors: Any) -> None:
    async with start_executors(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND, max_sessions=2))
        await apart.listed()
        for key in ("ann", "bob", "ann", "eve"):  # eve gets the session of bob
            await apart.say(key, "remember", arguments={"text": key})
        assert await apart.say("ann", "recall") == "ann,ann"
        assert await apart.say("bob", "recall") == ""


async def test_with_only_busy_sessions_a_call_is_rejected_with_the_setting_to_change(
    start_executors: Any,
) -> None:
    async with start_executors(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND, max_sessions=2))
        await apart.listed()
        busy = [asyncio.create_task(apart.end(key, "wait")) for key in ("ann", "bob")]
        try:
            await until_async(lambda: has_running_calls(apart, 2), "two busy sessions")
            with pytest.raises(ToolbusError) as refused:
                await apart.say("eve", "recall")
        finally:
            for each in busy:
                each.cancel()
        assert refused.value.code == "overloaded"
        assert "servers.s.max_sessions (now 2)" in refused.value.reason
        assert "servers.s.sessions to shared" in refused.value.reason


async def test_one_principal_cannot_use_every_session(start_executors: Any) -> None:
    async with start_executors(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND, sessions="client", max_sessions=4))
        await apart.listed()
        mine = {"family": ProtocolFamily.LEGACY}
        busy = [
            asyncio.create_task(apart.end("ann", "wait", session=f"c{number}", **mine))
            for number in range(2)
        ]
        try:
            await until_async(lambda: has_running_calls(apart, 2), "two busy sessions")
            with pytest.raises(ToolbusError, match=r"servers\.s\.max_sessions_per_principal"):
                await apart.say("ann", "recall", session="c9", **mine)
            assert await apart.say("bob", "recall") == ""
        finally:
            for each in busy:
                each.cancel()


async def test_an_idle_session_ends_and_the_others_continue(start_executors: Any) -> None:
    async with start_executors(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND, idle=1.0))
        await apart.listed()
        await apart.say("ann", "remember", arguments={"text": "a"})

        async def alone() -> bool:
            await apart.say("bob", "remember", arguments={"text": "b"})
            (row,) = await apart.rows()
            return [each["owner"] for each in row["sessions"]["sessions"]] == ["key bob"]

        await until_async(alone, "ann's idle session ended")
        assert await apart.say("ann", "recall") == ""


async def test_a_dying_process_of_one_key_does_not_affect_the_others(start_executors: Any) -> None:
    async with start_executors(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND))
        await apart.listed()
        await apart.say("bob", "remember", arguments={"text": "b"})
        for _ in range(8):  # enough to open a breaker
            with pytest.raises(ToolbusError):
                await apart.say("ann", "die", deadline=time() + 3)
            assert await apart.say("bob", "recall") == "b"


async def test_the_sessions_of_a_stopped_executor_move_to_the_other(start_executors: Any) -> None:
    async with start_executors().running() as apart:
        await apart.declare(s=Server(command=COMMAND))
        await apart.listed()
        keys: list[str] = []
        holders: dict[str, str] = {}
        while len(holders) < len(keys) or len({*holders.values()}) < 2:
            if len(holders) == len(keys):  # else an executor has not replied in time
                keys.append(f"k{len(keys)}")
                await apart.say(keys[-1], "remember", arguments={"text": keys[-1]})
            holders = await apart.holders()
        gone = apart.executors[0].events.producer
        await apart.stop(0)
        result = await asyncio.gather(*(apart.say(key, "recall") for key in keys))
        expected = ["" if holders[f"key {key}"] == gone else key for key in keys]
        assert result == expected, "sessions of the other executor are unchanged"


async def test_a_notification_of_a_session_reaches_its_owner_only(start_executors: Any) -> None:
    server = Server(command=FIXTURE, env={"PYTHONPATH": str(TESTS)}, cwd=str(TESTS))
    async with start_executors(1).running() as apart:
        messages: list[ServerNotification] = []
        await apart.ingress.bus.subscribe(
            "tb.notification.s",
            lambda payload, *_: messages.append(ServerNotification.decode(payload)),
        )
        await apart.ingress.bus.settled()
        await apart.declare(s=server)
        await apart.listed()
        watching = {"method": "resources/subscribe", "arguments": {"uri": WATCHED}}
        await apart.end("ann", WATCHED, **watching)
        await apart.say("bob", "test_touch_watched_resource")  # in a process without a subscription
        await apart.say("ann", "test_touch_watched_resource")
        await until(lambda: messages, "ann's notification")
        (result,) = messages
        assert result.method == "notifications/resources/updated"
        assert result.principal_id == apart.principal_id("ann")
        assert result.principal_id != apart.principal_id("bob")


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_each_client_that_can_answer_requests_has_its_own_session(
    start_executors: Any, tmp_path: Path, kind: str
) -> None:
    with FixtureServer(tmp_path, "--family", "legacy").running() as fixture:
        process = Server(command=FIXTURE, env={"PYTHONPATH": str(TESTS)}, cwd=str(TESTS))
        declared = process if kind == "stdio" else Server(url=fixture.url)
        async with start_executors(1).running() as apart:
            await apart.declare(s=declared)
            await apart.listed()
            for session in ("c1", "c2", "c1"):
                final = await apart.end(
                    "ann",
                    "test_elicitation",
                    family=ProtocolFamily.LEGACY,
                    session=session,
                    capabilities='{"elicitation":{}}',
                    arguments={"message": "who?"},
                )
                assert isinstance(final, InputRequired)
            await apart.say("ann", "test_simple_text", family=ProtocolFamily.LEGACY, session="c3")
            (row,) = await apart.rows()
            held = {each["client"] for each in row["sessions"]["sessions"]}
            assert held == {"", "c1", "c2"}, "none for c3, whose client cannot answer requests"
