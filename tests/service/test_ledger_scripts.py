"""Scripts of the ledger share one connection: each reply ends its own command, in every failure."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import ResponseError

from harness.engines.valkey_server import ValkeyServer
from harness.waits import until
from toolbus_policy.ledger.lua_scripts import ScriptRunner

PATIENT = 60.0
KEYS = ["{acme}:book2", "{acme}:e:calls", "{acme}:e:due"]
LOST = ["no such epoch", 0, 10, 0]  # the script `due` replies with b"lost"


@pytest.fixture
async def runner(own_valkey: ValkeyServer) -> AsyncIterator[ScriptRunner]:
    made = ScriptRunner(own_valkey.url, PATIENT)
    yield made
    await made.close()


@pytest.fixture
async def client(own_valkey: ValkeyServer) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(own_valkey.url) as made:
        yield made


def due(runner: ScriptRunner) -> asyncio.Future[object]:
    return runner.run("due", KEYS, LOST)


def opened(runner: ScriptRunner, token: str) -> asyncio.Future[object]:
    return runner.run("open", ["{acme}:book2", "{acme}:lock"], [token, "e1"])


async def test_scripts_sent_together_share_a_connection_and_get_their_own_replies(
    runner: ScriptRunner, client: redis.Redis
) -> None:
    await client.set("{acme}:lock", "mine")
    replies = await asyncio.gather(
        due(runner), opened(runner, "other"), due(runner), opened(runner, "mine"), due(runner)
    )
    assert list(replies) == [b"lost", 0, b"lost", 1, b"lost"]
    assert len(await client.client_list()) == 2  # the runner's, and the client's own


async def test_a_script_that_the_server_does_not_have_is_loaded(
    runner: ScriptRunner, client: redis.Redis
) -> None:
    for _ in range(2):
        replies = await asyncio.gather(due(runner), due(runner))
        assert list(replies) == [b"lost", b"lost"]
        await client.script_flush()


async def test_an_error_ends_one_script_and_not_the_others(
    runner: ScriptRunner, client: redis.Redis
) -> None:
    await client.set("{acme}:book2", "not a hash")
    await client.set("{acme}:lock", "mine")
    failed, other = await asyncio.gather(
        due(runner), opened(runner, "other"), return_exceptions=True
    )
    assert isinstance(failed, ResponseError)
    assert other == 0


async def test_a_cancelled_script_does_not_shift_the_replies(
    runner: ScriptRunner, client: redis.Redis
) -> None:
    await client.set("{acme}:lock", "mine")
    await due(runner)
    first, second = due(runner), opened(runner, "mine")
    first.cancel()
    assert await second == 1


async def test_scripts_are_sent_again_on_a_new_connection_when_theirs_is_closed(
    runner: ScriptRunner, own_valkey: ValkeyServer, client: redis.Redis
) -> None:
    await due(runner)
    before = {each["id"] for each in await client.client_list()}
    await client.client_pause(600_000, all=False)
    waiting = [due(runner), due(runner)]
    await client.client_kill_filter(_type="normal", skipme=True)
    await client.client_unpause()
    assert list(await asyncio.gather(*waiting)) == [b"lost", b"lost"]
    assert {each["id"] for each in await client.client_list()} - before
    own_valkey.kill()
    with pytest.raises(BrokenError):
        await due(runner)


async def test_a_late_reply_ends_its_script_and_those_behind_it_are_sent_again(
    runner: ScriptRunner, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await due(runner)
    await client.client_pause(600_000, all=False)
    with monkeypatch.context() as hasty:
        hasty.setattr(runner, "_seconds", 0.3)
        late = due(runner)
    behind = opened(runner, "other")
    with pytest.raises(TimeoutError):
        await late
    await client.client_unpause()
    assert await behind == 0


async def test_scripts_in_progress_end_when_the_runner_is_closed(
    runner: ScriptRunner, client: redis.Redis
) -> None:
    await due(runner)
    await client.client_pause(600_000, all=False)
    waiting = due(runner)
    await runner.close()
    with pytest.raises(BrokenError):
        await waiting
    await client.client_unpause()


async def test_scripts_that_wait_for_the_connection_end_when_the_server_refuses_it(
    own_valkey: ValkeyServer,
) -> None:
    own_valkey.kill()
    runner = ScriptRunner(own_valkey.url, PATIENT)
    waiting = [due(runner), due(runner)]
    await until(lambda: all(each.done() for each in waiting), "both end")
    assert [type(each.exception()) for each in waiting] == [BrokenError, BrokenError]
    await runner.close()
