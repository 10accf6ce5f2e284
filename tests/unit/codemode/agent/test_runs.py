"""Runs against a chain that makes each call once per idempotency key, as policy and executor do."""

import asyncio
from typing import Any

import pytest

from harness.models.run_chain import BODY, BOUND, CHARGE, DIGEST, OTHER, Gateway, first_time
from toolbus_common.contracts import (
    CallRequested,
    OwnRunsRequest,
    RunsRequest,
)
from toolbus_common.contracts.model_calls import CHAT
from toolbus_common.errors import (
    BusDownError,
    CallInProgressError,
    ConflictError,
    InvalidError,
    ToolbusError,
    UnknownEntryError,
    UpstreamDeadError,
)


async def test_calls_of_a_turn_have_keys_of_their_own_and_one_parent() -> None:
    gateway = Gateway([["say", "say"], ["count"]])
    response = await gateway.run()
    assert response["choices"][0]["message"]["content"] == "turn 0\n\nturn 1\n\nturn 2"
    keys = list(gateway.chain.outcomes)
    assert keys == [f"toolbus.run/a1/{place}" for place in ("1/0", "1/1", "2/0")]
    assert {each.parent_id for each in gateway.chain.requests} == {"a1"}
    state = await gateway.state()
    assert (state.state, state.turns, state.calls, state.tokens) == ("completed", 3, 3, 30)
    assert state.cost == 3 * CHARGE
    assert [each.NAME for each in gateway.chain.events] == [
        "run.started", "call.extended", "run.completed",
    ]  # fmt: skip


@pytest.mark.parametrize("tool", ["say", "count"])
async def test_an_interrupted_call_is_not_made_again(tool: str) -> None:
    """Store its outcome, but not the state of the run, as if codemode were killed then."""
    gateway = Gateway([["say"], ["count"]])

    def kill(call: CallRequested) -> None:
        gateway.bucket.down = call.tool == tool

    gateway.chain.after = kill
    with pytest.raises(BusDownError):
        await gateway.run()
    gateway.chain.after, gateway.bucket.down = (lambda _call: None), False
    gateway.restart()
    assert (await gateway.state()).state == "running"
    response = await gateway.run("a2", "a1")
    assert response["choices"][0]["message"]["content"] == "turn 0\n\nturn 1\n\nturn 2"
    assert gateway.chain.executed == ["say {}", "count {}"]
    assert len(gateway.chain.requests) == 3


async def test_an_interrupted_model_request_is_repeated_when_the_run_continues() -> None:
    gateway = Gateway([["say"]])
    second = lambda call: len(gateway.chain.requests) == 2 and bool(call.method == CHAT)  # noqa: E731
    gateway.chain.after = first_time(second, UpstreamDeadError("gone"))
    with pytest.raises(UpstreamDeadError, match="x-toolbus-run: a1"):
        await gateway.run()
    assert (await gateway.state()).state == "failed"
    await gateway.run("a2", "a1")
    assert (len(gateway.chain.requests), gateway.chain.executed) == (3, ["say {}"])
    assert (await gateway.state()).turns == 3


async def test_without_a_stored_state_no_step_is_made() -> None:
    gateway = Gateway([["say"]])
    gateway.bucket.down = True
    with pytest.raises(BusDownError):
        await gateway.run()
    assert (gateway.chain.requests, gateway.chain.executed) == ([], [])


async def test_a_request_that_continues_a_run_ends_the_earlier_one() -> None:
    gateway = Gateway([["say"], ["count"]])
    taken: list[Any] = []
    began = asyncio.Event()

    def take_over(call: CallRequested) -> None:
        if call.tool == "say" and not taken:
            taken.append(asyncio.ensure_future(gateway.run("a2", "a1")))
            began.set()

    gateway.chain.after = take_over
    first = asyncio.ensure_future(gateway.run())
    await began.wait()
    done = await asyncio.gather(first, *taken, return_exceptions=True)
    assert sum(isinstance(each, CallInProgressError) for each in done) == 1
    assert gateway.chain.executed == ["say {}", "count {}"]


async def test_only_the_same_request_continues_a_run() -> None:
    gateway = Gateway([])
    await gateway.run()
    other = BODY.replace(b"go", b"no")
    with pytest.raises(InvalidError, match="Send the same body"):
        await gateway.run("a2", "a1", other)
    with pytest.raises(UnknownEntryError):
        await gateway.run("a2", "ffff")
    assert (await gateway.run("a2", "a1"))["id"] == "chatcmpl-a1"
    assert len(gateway.chain.requests) == 1


async def test_a_run_of_another_principal_looks_unknown() -> None:
    gateway = Gateway([])
    await gateway.run()
    own = await gateway.runs.answer_own(OwnRunsRequest(key_digest=DIGEST))
    assert [each.run for each in own.runs] == ["a1"]
    assert (await gateway.runs.answer_own(OwnRunsRequest(key_digest=OTHER))).runs == ()
    for cancel in (False, True):
        with pytest.raises(UnknownEntryError):
            await gateway.runs.answer_own(OwnRunsRequest(key_digest=OTHER, run="a1", cancel=cancel))


async def test_a_cancelled_run_makes_no_further_step_and_cannot_be_continued() -> None:
    gateway = Gateway([["say"], ["count"]])

    async def cancel() -> None:
        await gateway.runs.answer(RunsRequest(run="a1", cancel=True))

    cancelling: list[Any] = []

    def on_call(call: CallRequested) -> None:
        if call.tool == "say":
            cancelling.append(asyncio.ensure_future(cancel()))

    gateway.chain.after = on_call
    with pytest.raises(ToolbusError):
        await gateway.run()
    await asyncio.gather(*cancelling)
    assert "a1" in gateway.chain.cancelled
    with pytest.raises(ConflictError, match="was cancelled"):
        await gateway.run("a2", "a1")
    with pytest.raises(ConflictError):
        await gateway.runs.answer(RunsRequest(run="a1", cancel=True))


async def test_calls_that_are_not_automatic_are_pending() -> None:
    gateway = Gateway([["say", "push"]])
    response = await gateway.run()
    (pending,) = response["choices"][0]["message"]["tool_calls"]
    assert (pending["function"]["name"], pending["id"]) == ("push", "tb_a1_1")
    assert gateway.chain.executed == ["say {}"]
    assert (await gateway.state()).state == "pending"


async def test_money_ends_a_run_before_a_request_that_could_exceed_it() -> None:
    gateway = Gateway([["say"]] * 9, usd=(BOUND + CHARGE) / 1e6, repeats=9)
    response = await gateway.run()
    assert response["toolbus"]["limit"] == "usd"
    assert len(gateway.chain.requests) == 2
    assert (await gateway.state()).cost <= BOUND + CHARGE
