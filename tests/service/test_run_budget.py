"""The budget of a program's call: rejected before an approval is requested or money reserved."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.services.policy_replicas import PolicyReplicas, declared
from harness.waits import until_async
from toolbus_common.config import MICRO
from toolbus_common.contracts import CallResult
from toolbus_common.errors import RunBudgetExceededError

PRICE = 0.02


@pytest.fixture
async def priced_policy(start_policy: Any) -> AsyncIterator[PolicyReplicas]:
    """Run one policy where both tools cost the same, and `burn` needs approval."""
    async with start_policy(1) as policy:
        prices = {"docs__*": PRICE}
        await policy.declare(declared().model_copy(update={"prices": prices}))
        await until_async(lambda: refused(policy), "the price is in force")
        yield policy


async def refused(policy: PolicyReplicas, tool: str = "read", max_charge: int = 1) -> Any:
    """Return the rejection of a call with this budget, or None."""
    try:
        await policy.request(tool, max_charge=max_charge)
    except RunBudgetExceededError as error:
        return error
    return None


async def test_a_call_above_the_budget_is_not_dispatched(priced_policy: PolicyReplicas) -> None:
    priced_policy.reached.clear()
    error = await refused(priced_policy, max_charge=int(PRICE * MICRO) - 1)
    assert error is not None
    assert error.data == {"costs_usd": 0.02, "left_usd": 0.019999}
    assert "costs up to $0.02, and its program may spend $0.019999 more." in error.reason
    assert priced_policy.reached == []


async def test_a_call_of_exactly_the_budget_runs(priced_policy: PolicyReplicas) -> None:
    assert isinstance(
        await priced_policy.request("read", max_charge=int(PRICE * MICRO)), CallResult
    )
    assert isinstance(await priced_policy.request("read"), CallResult)


async def test_no_approval_is_requested_for_an_unaffordable_call(
    priced_policy: PolicyReplicas,
) -> None:
    assert await refused(priced_policy, "burn") is not None
    assert await priced_policy.waiting() == ()
