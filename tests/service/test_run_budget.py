"""What a call may cost at most for whoever asks: refused before anybody is asked or paid."""

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
async def priced(begin: Any) -> AsyncIterator[PolicyReplicas]:
    """One policy, where both tools cost the same; `burn` needs a person beside."""
    async with begin(1) as policy:
        prices = {"docs__*": PRICE}
        await policy.declare(declared().model_copy(update={"prices": prices}))
        await until_async(lambda: refused(policy), "the price is in force")
        yield policy


async def refused(policy: PolicyReplicas, tool: str = "read", most: int = 1) -> Any:
    """How a call that may cost so little is refused; None when it is not."""
    try:
        await policy.request(tool, most=most)
    except RunBudgetExceededError as error:
        return error
    return None


async def test_a_call_that_costs_more_than_it_may_is_sent_to_nobody(priced: PolicyReplicas) -> None:
    priced.reached.clear()
    error = await refused(priced, most=int(PRICE * MICRO) - 1)
    assert error is not None
    assert error.data == {"costs_usd": 0.02, "left_usd": 0.019999}
    assert "costs up to $0.02, and its program may spend $0.019999 more." in error.reason
    assert priced.reached == []


async def test_a_call_that_costs_exactly_what_it_may_goes_through(priced: PolicyReplicas) -> None:
    assert isinstance(await priced.request("read", most=int(PRICE * MICRO)), CallResult)
    assert isinstance(await priced.request("read"), CallResult)


async def test_nobody_is_asked_to_approve_what_cannot_be_paid(priced: PolicyReplicas) -> None:
    assert await refused(priced, "burn") is not None
    assert await priced.waiting() == ()
