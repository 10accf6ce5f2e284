"""One key never meets another's state at a server, whatever the server is and whoever calls it."""

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
ENOUGH = 12  # calls, of which each executor is sure to have been handed some
FAMILIES: dict[str, dict[str, Any]] = {
    "modern": {"family": ProtocolFamily.MODERN},
    "handshake": {"family": ProtocolFamily.LEGACY, "session": "c1"},
}


@pytest.fixture
def begin(settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How to have some executors."""
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
    return lambda executors=2: ExecutorPair(settings, operator, executors)


@pytest.fixture
async def apart(begin: Any) -> AsyncIterator[ExecutorPair]:
    """Two executors."""
    async with begin().running() as made:
        yield made


async def at_work(apart: ExecutorPair, many: int) -> bool:
    """Whether so many sessions have a call under way."""
    (row,) = await apart.rows()
    return [each["in_flight"] > 0 for each in row["sessions"]["held"]].count(True) == many


async def keep_apart(apart: ExecutorPair, **more: Any) -> None:
    """Two keys remember by turns; each recalls its own, whichever executor is handed the call."""
    for number in range(ENOUGH):
        await apart.say("ann", "remember", arguments={"text": f"a{number}"}, **more)
        await apart.say("bob", "remember", arguments={"text": f"b{number}"}, **more)
    for key in ("ann", "bob"):
        whole = ",".join(f"{key[0]}{number}" for number in range(ENOUGH))
        result = await asyncio.gather(*(apart.say(key, "recall", **more) for _ in range(ENOUGH)))
        assert set(result) == {whole}
    assert await apart.say("eve", "recall", **more) == ""


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_process_is_one_keys_alone(apart: ExecutorPair, family: str) -> None:
    await apart.declare(s=Server(command=COMMAND))
    await apart.listed()
    await keep_apart(apart, **FAMILIES[family])


@pytest.mark.parametrize("kind", ["http", "sse"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_a_session_over_http_is_one_keys_alone(
    apart: ExecutorPair, tmp_path: Path, family: str, kind: str
) -> None:
    with Stateful(tmp_path, kind).running() as server:
        declared = Server(sse=server.url) if kind == "sse" else Server(url=server.url)
        await apart.declare(s=declared)
        await apart.listed()
        await keep_apart(apart, **FAMILIES[family])


async def test_a_server_without_session_ids_serves_everybody_over_one_connection(
    apart: ExecutorPair, tmp_path: Path
) -> None:
    with Stateful(tmp_path, "stateless").running() as server:
        await apart.declare(s=Server(url=server.url))
        await apart.listed()
        for key in ("ann", "bob"):
            await apart.say(key, "remember", arguments={"text": key})
            assert await apart.say(key, "recall") == "", "it can keep nothing for a caller"
        (row,) = await apart.rows()
        assert row["sessions"]["open"] == 0


async def test_python_functions_keep_their_state_for_one_key(
    apart: ExecutorPair, tmp_path: Path
) -> None:
    (tmp_path / "stateful_functions.py").write_text(FUNCTIONS)
    functions = ("stateful_functions:remember", "stateful_functions:recall")
    await apart.declare(s=Server(python=functions, cwd=str(tmp_path)))
    await apart.listed()
    await keep_apart(apart)


async def test_what_is_shared_by_an_operators_word_is_shared(apart: ExecutorPair) -> None:
    await apart.declare(s=Server(command=COMMAND, sessions="shared"))
    await apart.listed()
    await apart.say("ann", "remember", arguments={"text": "a"})
    assert await apart.say("bob", "recall") == "a"


async def test_with_sessions_of_clients_each_has_its_own_and_who_has_none_its_principals(
    apart: ExecutorPair,
) -> None:
    await apart.declare(s=Server(command=COMMAND, sessions="client"))
    await apart.listed()
    mine = {"family": ProtocolFamily.LEGACY}
    for session in ("", "c1", "c2"):
        fields = {"text": session or "none"}
        await apart.say("ann", "remember", arguments=fields, session=session, **mine)
    assert await apart.say("ann", "recall", session="c1", **mine) == "c1"
    assert await apart.say("ann", "recall", session="c2", **mine) == "c2"
    assert await apart.say("ann", "recall", **mine) == "none"
    assert await apart.say("bob", "recall", session="c1", **mine) == "", "its name is no key to it"


async def test_a_key_made_again_under_its_name_is_somebody_else(apart: ExecutorPair) -> None:
    await apart.declare(s=Server(command=COMMAND))
    await apart.listed()
    await apart.say("bot", "remember", arguments={"text": "old"})
    assert await apart.say("bot", "recall") == "old"
    apart.secrets["bot"] = "made again"
    assert await apart.say("bot", "recall") == ""


async def test_beyond_the_bound_the_longest_unused_session_ends(begin: Any) -> None:
    async with begin(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND, most_sessions=2))
        await apart.listed()
        for key in ("ann", "bob", "ann", "eve"):  # eve's place was bob's
            await apart.say(key, "remember", arguments={"text": key})
        assert await apart.say("ann", "recall") == "ann,ann"
        assert await apart.say("bob", "recall") == ""


async def test_a_busy_session_makes_no_service_and_the_error_names_the_line(begin: Any) -> None:
    async with begin(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND, most_sessions=2))
        await apart.listed()
        busy = [asyncio.create_task(apart.end(key, "wait")) for key in ("ann", "bob")]
        try:
            await until_async(lambda: at_work(apart, 2), "two sessions at work")
            with pytest.raises(ToolbusError) as refused:
                await apart.say("eve", "recall")
        finally:
            for each in busy:
                each.cancel()
        assert refused.value.code == "overloaded"
        assert "servers.s.most_sessions (now 2)" in refused.value.reason
        assert "servers.s.sessions to shared" in refused.value.reason


async def test_one_principal_cannot_take_all_places(begin: Any) -> None:
    async with begin(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND, sessions="client", most_sessions=4))
        await apart.listed()
        mine = {"family": ProtocolFamily.LEGACY}
        busy = [
            asyncio.create_task(apart.end("ann", "wait", session=f"c{number}", **mine))
            for number in range(2)
        ]
        try:
            await until_async(lambda: at_work(apart, 2), "two sessions at work")
            with pytest.raises(ToolbusError, match=r"servers\.s\.most_sessions_each"):
                await apart.say("ann", "recall", session="c9", **mine)
            assert await apart.say("bob", "recall") == ""
        finally:
            for each in busy:
                each.cancel()


async def test_an_idle_session_ends_and_the_others_go_on(begin: Any) -> None:
    async with begin(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND, idle=1.0))
        await apart.listed()
        await apart.say("ann", "remember", arguments={"text": "a"})

        async def alone() -> bool:
            await apart.say("bob", "remember", arguments={"text": "b"})
            (row,) = await apart.rows()
            return [each["owner"] for each in row["sessions"]["held"]] == ["key bob"]

        await until_async(alone, "ann's idle session ended")
        assert await apart.say("ann", "recall") == ""


async def test_one_keys_dying_process_leaves_the_others_alone(begin: Any) -> None:
    async with begin(1).running() as apart:
        await apart.declare(s=Server(command=COMMAND))
        await apart.listed()
        await apart.say("bob", "remember", arguments={"text": "b"})
        for _ in range(8):  # enough to open a breaker
            with pytest.raises(ToolbusError):
                await apart.say("ann", "die", deadline=time() + 3)
            assert await apart.say("bob", "recall") == "b"


async def test_when_an_executor_stops_its_sessions_go_to_the_other(begin: Any) -> None:
    async with begin().running() as apart:
        await apart.declare(s=Server(command=COMMAND))
        await apart.listed()
        keys: list[str] = []
        while len({*(await apart.holders()).values()}) < 2:
            keys.append(f"k{len(keys)}")
            await apart.say(keys[-1], "remember", arguments={"text": keys[-1]})
        holders, gone = await apart.holders(), apart.executors[0].events.producer
        await apart.stop(0)
        result = await asyncio.gather(*(apart.say(key, "recall") for key in keys))
        kept = ["" if holders[f"key {key}"] == gone else key for key in keys]
        assert result == kept, "those of the other are as they were"


async def test_news_of_a_session_is_told_to_its_owner_alone(begin: Any) -> None:
    server = Server(command=FIXTURE, env={"PYTHONPATH": str(TESTS)}, cwd=str(TESTS))
    async with begin(1).running() as apart:
        messages: list[ServerNotification] = []
        await apart.ingress.bus.subscribe(
            "tb.notification.s",
            lambda payload, *_: messages.append(ServerNotification.decode(payload)),
        )
        await apart.declare(s=server)
        await apart.listed()
        watching = {"method": "resources/subscribe", "arguments": {"uri": WATCHED}}
        await apart.end("ann", WATCHED, **watching)
        await apart.say("bob", "test_touch_watched_resource")  # in a process nobody watches
        await apart.say("ann", "test_touch_watched_resource")
        await until(lambda: messages, "ann's news")
        (result,) = messages
        assert result.method == "notifications/resources/updated"
        assert result.principal_id == apart.principal_id("ann")
        assert result.principal_id != apart.principal_id("bob")


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_a_server_that_asks_has_a_session_for_each_client_that_can_be_asked(
    begin: Any, tmp_path: Path, kind: str
) -> None:
    with FixtureServer(tmp_path, "--family", "legacy").running() as fixture:
        process = Server(command=FIXTURE, env={"PYTHONPATH": str(TESTS)}, cwd=str(TESTS))
        declared = process if kind == "stdio" else Server(url=fixture.url)
        async with begin(1).running() as apart:
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
            held = {each["client"] for each in row["sessions"]["held"]}
            assert held == {"", "c1", "c2"}, "none for c3, whose client cannot be asked"
