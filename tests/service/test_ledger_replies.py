"""Replies that the ledger's connection must not trust, and servers that cannot run its scripts."""

import asyncio
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import ResponseError

from harness.engines.engine import own_port
from harness.engines.valkey_server import ValkeyServer
from harness.network.redis_servers import ScriptedRedis
from harness.services.ledger_state import MemoryGenerations, admission, claim, counters
from harness.waits import until
from toolbus_common.errors import LedgerDownError
from toolbus_policy.ledger.generations import KnownGeneration
from toolbus_policy.ledger.ledger import Extension, Ledger, ReservationEnd
from toolbus_policy.ledger.lua_scripts import AGAIN, ScriptRunner
from toolbus_policy.ledger.script_connection import ScriptConnection

PATIENT = 60.0
LOST = b"$4\r\nlost\r\n"
READ_ONLY = b"-READONLY You can't write against a read only replica.\r\n"
LARGE = 3_000_000
UNTRUSTED = {
    "a replica": READ_ONLY,
    "a replica without its primary": b"-MASTERDOWN Link with MASTER is down\r\n",
    "a message of another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a pushed message": b">2\r\n+invalidate\r\n*1\r\n+key\r\n",
}


def due(runner: ScriptRunner) -> asyncio.Future[Any]:
    return runner.run("due", ["book", "calls", "due"], ["e", 0, 10, 0])


def reserve(runner: ScriptRunner) -> asyncio.Future[Any]:
    return runner.run("reserve", ["book", "calls", "due", "counted"], ["e", 0, 1, "[[], []]"])


@pytest.mark.parametrize("reply", UNTRUSTED.values(), ids=UNTRUSTED)
async def test_scripts_are_sent_again_on_a_new_connection_after(reply: bytes) -> None:
    async with ScriptedRedis([reply], [LOST, LOST]).running() as server:
        runner = ScriptRunner(server.url, PATIENT)
        replies = await asyncio.gather(due(runner), reserve(runner))
        assert list(replies) == [b"lost", b"lost"]
        await runner.close()
    first, second = server.received[-1]
    assert first == server.received[0][0], "only a reservation says that it is sent again"
    assert second[-1] == AGAIN.encode()


async def test_a_message_without_a_command_closes_the_connection() -> None:
    async with ScriptedRedis([LOST + b"+surplus\r\n"], [LOST]).running() as server:
        runner = ScriptRunner(server.url, PATIENT)
        assert await due(runner) == b"lost"
        assert await due(runner) == b"lost"
        await runner.close()
    assert [len(scripts) for scripts in server.received] == [1, 1]


async def test_a_script_is_sent_twice_at_most() -> None:
    async with ScriptedRedis([READ_ONLY]).running() as server:
        runner = ScriptRunner(server.url, PATIENT)
        with pytest.raises(BrokenError):
            await due(runner)
        await runner.close()
    assert [len(scripts) for scripts in server.received] == [1, 1]


@pytest.mark.parametrize("code", ["LOADING", "NOPERM", "OOM", "BUSY"])
async def test_an_error_of_the_server_ends_the_script_and_keeps_the_connection(code: str) -> None:
    async with ScriptedRedis([f"-{code} no\r\n".encode(), LOST]).running() as server:
        runner = ScriptRunner(server.url, PATIENT)
        with pytest.raises(ResponseError, match=code):
            await due(runner)
        assert await due(runner) == b"lost"
        await runner.close()
    assert [len(scripts) for scripts in server.received] == [2]


async def test_a_script_that_is_missing_after_its_load_ends_with_an_error() -> None:
    async with ScriptedRedis([b"-NOSCRIPT No matching script.\r\n"] * 2).running() as server:
        runner = ScriptRunner(server.url, PATIENT)
        with pytest.raises(ResponseError, match="NOSCRIPT"):
            await due(runner)
        await runner.close()


async def test_a_large_reply_is_received_whole() -> None:
    large = b"$%d\r\n%b\r\n" % (LARGE, b"x" * LARGE)
    async with ScriptedRedis([large, LOST]).running() as server:
        runner = ScriptRunner(server.url, PATIENT)
        found, lost = await asyncio.gather(due(runner), due(runner))
        assert (len(found), lost) == (LARGE, b"lost")
        await runner.close()


async def test_scripts_end_when_the_runner_is_closed_while_it_connects() -> None:
    server = ScriptedRedis([])
    server.silent = True
    async with server.running():
        runner = ScriptRunner(server.url, PATIENT)
        waiting = due(runner)
        await until(lambda: server.received, "the client connects")
        await runner.close()
        for each in (waiting, due(runner)):
            with pytest.raises(BrokenError, match="was closed"):
                await each
    assert len(server.received) == 1


async def test_a_script_cancelled_while_the_client_connects_is_not_sent() -> None:
    async with ScriptedRedis([LOST]).running() as server:
        runner = ScriptRunner(server.url, PATIENT)
        due(runner).cancel()
        assert await reserve(runner) == b"lost"
        await runner.close()
    assert len(server.received[0]) == 1


async def test_scripts_end_when_the_client_fails_unexpectedly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_given: Any) -> None:
        raise ValueError("a defect of the client")

    monkeypatch.setattr(ScriptConnection, "open", fail)
    runner = ScriptRunner("redis://127.0.0.1:1", PATIENT)
    for _ in range(2):
        with pytest.raises(BrokenError, match="a defect of the client"):
            await due(runner)
    await runner.close()


async def test_a_replica_that_becomes_primary_is_used_again(
    own_valkey: ValkeyServer,
) -> None:
    ledger = Ledger(own_valkey.url, MemoryGenerations(), seconds=PATIENT)
    async with redis.Redis.from_url(own_valkey.url) as client:
        await ledger.reserve(claim("r0", admission(100)))
        before = {each["id"] for each in await client.client_list()}
        await client.replicaof("127.0.0.1", str(own_port()))
        with pytest.raises(LedgerDownError, match="unreachable"):
            await ledger.reserve(claim("r1", admission(100)))
        await client.replicaof("NO", "ONE")
        await ledger.reserve(claim("r2", admission(100)))
        assert {each["id"] for each in await client.client_list()} - before
    assert (await counters(own_valkey.url))["reserved"] == 200
    await ledger.close()


@pytest.mark.parametrize(
    "reply",
    [
        b":7\r\n",
        b"$2\r\nok\r\n",
        b"*2\r\n:1\r\n*0\r\n",
        b"*2\r\n:1\r\n*1\r\n*1\r\n$4\r\nwhat\r\n",
        b"*2\r\n:1\r\n*1\r\n*5\r\n$6\r\nbudget\r\n:1\r\n:1\r\n:1\r\n:1000000000000000000\r\n",
    ],
    ids=[
        "a number",
        "a text",
        "no reply for the call",
        "an unknown reply",
        "a time beyond all time",
    ],
)
async def test_a_reply_of_another_form_denies_the_calls_and_blocks_no_others(reply: bytes) -> None:
    async with ScriptedRedis([reply] * 8).running() as server:
        ledger = Ledger(server.url, _Known(), seconds=PATIENT)
        for number in range(4):  # more than the batches that may be in flight
            with pytest.raises(LedgerDownError, match="unreachable"):
                await ledger.reserve(claim(f"r{number}", admission(100)))
        await ledger.close()


async def test_settlement_fails_at_a_reply_of_another_script() -> None:
    async with ScriptedRedis([b"$2\r\nok\r\n", b":7\r\n"]).running() as server:
        ledger = Ledger(server.url, _Known(), seconds=PATIENT)
        with pytest.raises(LedgerDownError):
            await ledger.settle([ReservationEnd("r", "acme", "refund")])
        with pytest.raises(LedgerDownError):
            await ledger.extend([Extension("r", "acme", 1.0)])
        await ledger.close()


class _Known(MemoryGenerations):
    """Generations that know each customer already."""

    async def known(self, customer: str) -> KnownGeneration:
        return await self.begin(customer, "e1")


def test_the_client_is_of_a_version_whose_transport_can_be_taken_over() -> None:
    """`ScriptConnection.open` reads `_writer` and clears `_reader` of the client's connection."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    bound = re.search(r'"redis\[hiredis\]>=7\.1,<(\d+)"', project)
    assert bound is not None
    assert int(version("redis").split(".")[0]) < int(bound[1]), "the bound is not respected"
    assert int(bound[1]) == 9, "check `ScriptConnection.open` with the new version"
    made = redis.Connection()
    assert made._writer is None
    assert made._reader is None
