"""What a run leaves to its programs, and what its requests repeat of the client's."""

import json
from typing import Any

import pytest

from harness.builders.configurations import configuration_change
from harness.models.run_chain import BODY, CHARGE, Gateway
from toolbus_codemode.agent.tool_calls import MAX_ROUNDS
from toolbus_codemode.programs.program_report import ProgramReport
from toolbus_common.contracts import (
    CallRequested,
    CallResult,
    InputRequired,
)
from toolbus_common.errors import (
    InvalidError,
)


def ran(**used: Any) -> CallResult:
    """Return the result of a program with its report."""
    result = {"content": [{"type": "text", "text": "done"}]}
    return CallResult(json.dumps(ProgramReport(**used).added(result)).encode())


async def test_a_program_gets_what_the_run_has_left_and_its_calls_count() -> None:
    gateway = Gateway([["say"], ["program"], ["program"]], usd=0.01, calls=9, calls_per_tool=5)
    gateway.chain.replies["executeToolCode"] = ran(spent=4_000, by_tool={"shop__say": 2, "b": 1})
    await gateway.run()
    first, second = gateway.chain.programs
    assert (first.usd, first.calls) == ((10_000 - 2 * CHARGE) / 1e6, 7)
    assert (second.usd, second.calls) == ((6_000 - 3 * CHARGE) / 1e6, 3)
    assert second.run is not None
    assert (second.run.calls_per_tool, second.run.used["shop__say"]) == (5, 3)
    state = await gateway.state()
    assert (state.cost, state.calls) == (8_000 + 4 * CHARGE, 9)


async def test_a_program_without_a_report_counts_as_everything_that_was_left() -> None:
    gateway = Gateway([["program"], ["say"]], usd=0.01, calls=9)
    gateway.chain.replies["executeToolCode"] = CallResult(b'{"content":[]}')
    assert (await gateway.run())["toolbus"]["limit"] == "usd"
    state = await gateway.state()
    assert (state.cost, state.calls, len(gateway.chain.requests)) == (10_000, 9, 1)


@pytest.mark.parametrize(("approval", "made"), [("", 1), ("x", 1), ("a" * 32, MAX_ROUNDS + 1)])
async def test_only_policy_requests_an_approval_and_not_without_end(
    approval: str, made: int
) -> None:
    gateway = Gateway([["say"]])
    state = {"resultType": "input_required", "requestState": "toolbus.approval." + "b" * 32}
    gateway.chain.replies["say"] = InputRequired(json.dumps(state).encode(), approval)
    await gateway.run()
    assert gateway.chain.executed == ["say"] * made
    assert (await gateway.state()).approval == ""


async def test_a_run_continues_with_the_client_s_body_and_other_added_tools() -> None:
    gateway = Gateway([])
    await gateway.run(body=BODY, body_digest="d1")
    added = BODY.replace(b'"m/x"', b'"m/x", "tools": []')
    assert (await gateway.run("a2", "a1", added, body_digest="d1"))["id"] == "chatcmpl-a1"
    with pytest.raises(InvalidError, match="Send the same body"):
        await gateway.run("a3", "a1", added, body_digest="d2")


async def test_each_model_request_has_the_client_s_cache_control() -> None:
    gateway = Gateway([])
    await gateway.run(cache="no-store")
    assert json.loads(gateway.chain.requests[0].extra)["cache"] == "no-store"


async def test_tools_that_are_no_longer_automatic_are_the_client_s_in_the_next_turn() -> None:
    gateway = Gateway([["say"], ["count"]])

    def change(call: CallRequested) -> None:
        if call.tool == "say":
            declared = gateway.directory.now.configuration
            keys = {n: k.model_copy(update={"auto_execute": ()}) for n, k in declared.keys.items()}
            changed = declared.model_copy(update={"keys": keys})
            gateway.directory.projection.apply_change(configuration_change(changed))

    gateway.chain.after = change
    response = await gateway.run()
    assert response["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "count"
    assert gateway.chain.executed == ["say {}"]
