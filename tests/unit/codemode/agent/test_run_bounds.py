"""Bounds of runs: money, time, size and number, and what a request that takes over leaves."""

import asyncio
import json
from time import time
from typing import Any

import pytest

from harness.models.run_chain import BOUND, CHARGE, DIGEST, Gateway, first_time
from toolbus_codemode.agent.run import LARGEST_RESULTS, interrupted_calls
from toolbus_codemode.agent.run_record import State, Step
from toolbus_codemode.agent.runs import MAX_AT_ONCE
from toolbus_codemode.agent.tool_calls import ToolCalls
from toolbus_common.contracts import (
    CallExtended,
    CallRequested,
    FinalReply,
    OwnRunsRequest,
    RunsRequest,
)
from toolbus_common.contracts.model_calls import CHAT
from toolbus_common.errors import (
    CallInProgressError,
    ConflictError,
    InvalidError,
    OutcomeUnknownError,
    RateExceededError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)


async def test_the_call_of_a_run_has_a_deadline_after_the_end_of_the_run() -> None:
    gateway = Gateway([], seconds=1000)
    await gateway.run()
    (event,) = [each for each in gateway.chain.events if isinstance(each, CallExtended)]
    assert event.call_id == "a1"
    assert event.deadline > time() + 990


async def test_a_model_request_without_a_final_report_counts_at_its_bound() -> None:
    gateway = Gateway([["say"]], usd=1)
    second = lambda call: len(gateway.chain.requests) == 2 and bool(call.method == CHAT)  # noqa: E731
    gateway.chain.after = first_time(second, OutcomeUnknownError("lost"))
    with pytest.raises(OutcomeUnknownError):
        await gateway.run()
    assert (await gateway.state()).cost == CHARGE + BOUND


async def test_a_response_without_a_final_report_counts_at_its_bound() -> None:
    gateway = Gateway([["say"]], usd=1)
    gateway.chain.final_reports = False
    await gateway.run()
    assert (await gateway.state()).cost == 2 * BOUND


async def test_a_request_that_was_not_sent_costs_nothing() -> None:
    gateway = Gateway([], usd=1)
    gateway.chain.before = first_time(lambda _call: True, RateExceededError("busy"))
    with pytest.raises(RateExceededError):
        await gateway.run()
    assert (await gateway.state()).cost == 0


async def test_a_fallback_target_gets_what_the_first_one_left_of_the_money() -> None:
    gateway = Gateway([], usd=2 * BOUND / 1e6)
    gateway.chain.after = first_time(lambda _call: True, UpstreamDeadError("gone"))
    await gateway.run(model="either")
    assert [each.max_charge for each in gateway.chain.requests] == [2 * BOUND, BOUND]
    assert (await gateway.state()).cost == BOUND + CHARGE


async def test_results_of_a_turn_are_cut_to_a_size_that_can_be_stored() -> None:
    gateway = Gateway([["say"] * 9], repeats=9)
    gateway.chain.result = "x" * (1 << 20)
    await gateway.run()
    sent = json.loads(gateway.chain.requests[1].arguments)["messages"]
    texts = [each["content"] for each in sent if each["role"] == "tool"]
    assert len(texts) == 9
    assert sum(map(len, texts)) < LARGEST_RESULTS + 1000


async def test_a_run_with_too_much_content_fails_and_cannot_be_continued() -> None:
    gateway = Gateway([["say"] * 2] * 9, repeats=99)
    gateway.chain.result = "x" * (1 << 20)
    with pytest.raises(InvalidError, match="exceeds 6 MiB"):
        await gateway.run()
    assert (await gateway.state()).state == "failed"
    with pytest.raises(ConflictError, match="too large"):
        await gateway.run("a2", "a1")


async def test_a_conversation_that_is_too_large_is_refused_before_the_model_is_asked() -> None:
    gateway = Gateway([["say"] * 2, ["say"] * 2, ["push"]], repeats=99)
    gateway.chain.result = "x" * (1 << 20)
    calls = []
    for run in ("a1", "a2", "a3"):
        await gateway.run(run)
        calls.append({"role": "assistant", "tool_calls": [{"id": f"tb_{run}_0"}]})
    body = json.dumps({"model": "m/x", "messages": calls}).encode()
    with pytest.raises(InvalidError, match="The conversation has"):
        await gateway.run("a4", body=body)
    assert (await gateway.state("a4")).state == "failed"


async def test_a_list_of_runs_reads_no_content() -> None:
    gateway = Gateway([])
    for run in range(5):
        await gateway.run(f"a{run}")
    found = await gateway.runs.answer(RunsRequest(limit=2))
    assert ([each.run for each in found.runs], found.more) == (["a4", "a3"], True)
    found = await gateway.runs.answer_own(OwnRunsRequest(key_digest=DIGEST, limit=2, after="a2"))
    assert ([each.run for each in found.runs], found.more) == (["a1", "a0"], False)
    assert not any(each.endswith(".content") for each in gateway.bucket.read)


async def test_a_principal_has_a_limit_of_runs_in_progress() -> None:
    gateway = Gateway([])
    held: list[RateExceededError] = []

    async def another() -> None:
        try:
            await gateway.run("ffff")
        except RateExceededError as error:
            held.append(error)

    gateway.runs._at_once[gateway.owner()] = MAX_AT_ONCE
    await another()
    assert "in progress" in held[0].reason
    gateway.runs._at_once.clear()
    await another()
    assert len(held) == 1
    assert not gateway.runs._at_once


async def test_a_request_that_takes_over_cancels_only_calls_that_wait_for_approval() -> None:
    gateway = Gateway([])
    await gateway.run()
    entry = await gateway.runs.store.get(gateway.owner(), "a1")
    running, waiting = Step("tool", "shop__say", "c1", 0.0), Step("tool", "shop__say", "c2", 0.0)
    waiting.waiting, entry.record.state = True, State.WAITING
    entry.record.steps = [running, waiting, Step("model", "m/x", "c3", 0.0)]
    assert interrupted_calls(entry) == ["c2", "c3"]


async def test_calls_of_a_run_that_was_taken_over_are_not_cancelled() -> None:
    gateway = Gateway([["say", "count"]])
    hold = asyncio.Event()
    real = gateway.chain.request

    async def request(call: CallRequested, receive: Any = None) -> FinalReply:
        if call.tool == "count":
            await hold.wait()
        elif call.tool == "say":
            await asyncio.sleep(0)
            for name, (_, value) in list(gateway.bucket.entries.items()):
                gateway.bucket.writes += 1
                gateway.bucket.entries[name] = (gateway.bucket.writes, value)
        return await real(call, receive)

    gateway.chain.request = request  # type: ignore[method-assign]
    gateway.restart()
    with pytest.raises(CallInProgressError):
        await gateway.run()
    await asyncio.sleep(0)
    assert gateway.chain.cancelled == []


async def test_a_run_whose_time_ends_in_a_model_request_has_a_normal_response() -> None:
    gateway = Gateway([], seconds=0.3)
    gateway.chain.after = first_time(lambda _call: True, UpstreamTimeoutError("late"))
    response = await gateway.run()
    assert response["toolbus"]["limit"] == "seconds"


async def test_a_call_in_progress_is_repeated_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def pause(_self: ToolCalls, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(ToolCalls, "_pause", pause)
    gateway = Gateway([["say"]])

    def busy(call: CallRequested) -> None:
        if call.tool == "say" and len(pauses) < 7:
            raise CallInProgressError("busy")

    gateway.chain.before = busy
    await gateway.run()
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
