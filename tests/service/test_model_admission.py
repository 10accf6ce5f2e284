"""Model requests on a real bus and a real Valkey: reservation, intent, debt, rates of tokens."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from harness.audit.events import completed
from harness.services.ledger_state import counters
from harness.services.policy_replicas import PolicyReplicas, declared, last_event
from harness.waits import until_async
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallAdmitted, CallResult
from toolbus_common.contracts.model_calls import CHAT, ModelCall
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import (
    BudgetExceededError,
    InvalidError,
    RateExceededError,
    ToolbusError,
    UnknownModelError,
)
from toolbus_common.nats.connection import Bus

PROVIDERS = {
    "local": {"kind": "openai", "url": "http://127.0.0.1:9/v1", "max_output": 100},
    "claude": {"kind": "anthropic", "key": "x"},
}
ALIASES = {"fast": [{"provider": "local", "model": "gemma"}]}
PRICES = {"local/gemma": {"input": 1.0, "output": 10.0, "cached_input": 0.5}}
BODY = b'{"model":"fast","messages":[]}'
RESERVED = 10 + 100 * 10  # 30 bytes of input, and the provider's bound of output tokens
COUNTER = "budget:key:bot:usd:day:UTC"


def configured(**key: Any) -> Configuration:
    made = declared(models=["fast", "local/*"], tools=["*"], **key)
    sections = {"providers": PROVIDERS, "models": ALIASES, "model_prices": PRICES}
    return Configuration.model_validate(made.model_dump() | sections)


class Models:
    """A policy whose executor charges `charge` for each request."""

    def __init__(self, policy: PolicyReplicas, valkey_url: str) -> None:
        self.policy, self._url = policy, valkey_url
        self.charge = 0
        policy.ends = self._end

    async def _end(self, call: CallAdmitted, _context: CallContext) -> Reply | None:
        """Publish the outcome of a request like executor."""
        self.policy.executor.events.publish(
            completed(
                call_id=call.call_id,
                customer=call.customer,
                key=call.key,
                server=call.server,
                tool=call.tool,
                charge=self.charge,
                reserved=call.reserved,
            )
        )
        return CallResult(b"{}")

    async def request(self, alias: str = "fast", output: int | None = None, **given: Any) -> Any:
        fields = {
            "server": "local",
            "tool": "gemma",
            "method": CHAT,
            "extra": ModelCall(alias=alias, output=output).encode(),
        }
        call = self.policy.call(**{**fields, **given})
        return await self.policy.ingress.calls.request(call.model_copy(update={"arguments": BODY}))

    async def error(self, why: type[ToolbusError], **given: Any) -> ToolbusError:
        with pytest.raises(why) as caught:
            await self.request(**given)
        return caught.value

    async def spent(self, amount: int) -> None:
        """Return once the budget of the key has spent this amount, and nothing is reserved."""

        async def settled() -> bool:
            found = await counters(self._url, COUNTER)
            return (found.get("spent"), found.get("reserved")) == (amount, 0)

        await until_async(settled, f"{amount} micro-dollars are spent")

    async def configure(self, **key: Any) -> None:
        await self.policy.declare(configured(**key))


@pytest.fixture
async def models(start_policy: Any, valkey_url: str) -> AsyncIterator[Models]:
    async with start_policy(1) as policy:
        yield Models(policy, valkey_url)


async def test_a_request_is_recorded_reserved_and_dispatched_with_its_price(
    models: Models, operator: Bus
) -> None:
    await models.configure(budget={"usd": 1, "per": "day"})
    assert isinstance(await models.request(), CallResult)
    (admitted,) = models.policy.reached
    assert (admitted.server, admitted.tool, admitted.method) == ("local", "gemma", CHAT)
    assert (admitted.charge, admitted.reserved) == (RESERVED, True)
    assert admitted.price == (1, 0.5, 1, 10, 10, 0)
    assert admitted.arguments == BODY
    intent = json.loads(await last_event(operator, "call.allowed"))
    assert intent["charge"] == RESERVED
    assert intent["method"] == CHAT
    assert intent["arguments_bytes"] == len(BODY)
    await models.spent(0)


async def test_a_denied_request_is_recorded_and_not_dispatched(
    models: Models, operator: Bus
) -> None:
    await models.configure()
    error = await models.error(UnknownModelError, alias="", server="claude")
    assert error.reason.startswith("Unknown model: 'claude/gemma'")

    async def recorded() -> Any:
        event = await last_event(operator, "call.denied")
        return event and json.loads(event)

    event = await until_async(recorded, "the denial is recorded")
    assert (event["server"], event["code"], event["method"]) == ("claude", "unknown_model", CHAT)
    assert models.policy.reached == []


async def test_a_model_without_a_price_is_not_dispatched(models: Models) -> None:
    await models.configure()
    error = await models.error(UnknownModelError, alias="", tool="llama")
    assert "'local/llama' has no price" in error.reason
    assert models.policy.reached == []


async def test_a_charge_above_the_reservation_is_a_debt_that_blocks_the_next_request(
    models: Models,
) -> None:
    await models.configure(budget={"usd": 0.0012, "per": "day"})
    models.charge = 1500  # 300 above the budget, 490 above the reservation
    await models.request()
    await models.spent(1500)
    error = await models.error(BudgetExceededError, output=1)
    assert "'key:bot' has spent or reserved $0.0015 of $0.0012 per day" in error.reason
    assert "$0.0003 are above the limit, because a provider billed more" in error.reason
    assert "This request reserves $2e-05" in error.reason
    assert (error.data["spent_usd"], error.data["reserved_usd"]) == (0.0015, 0)
    assert len(models.policy.reached) == 1
    await models.configure(budget={"usd": 0.00152, "per": "day"})
    models.charge = 20
    await models.request(output=1)
    await models.spent(1520)


async def test_tools_and_models_share_a_budget(models: Models) -> None:
    configuration = configured(budget={"usd": 0.0012, "per": "day"}, approve=[])
    await models.policy.declare(
        Configuration.model_validate(configuration.model_dump() | {"prices": {"docs__*": 0.001}})
    )
    models.charge = 300
    await models.request()
    await models.spent(300)
    assert await models.policy.refuses(BudgetExceededError, "read")
    only = {"usd": 0.0012, "per": "day", "models": ["fast"]}
    configuration = configured(budget=only, approve=[])
    await models.policy.declare(
        Configuration.model_validate(configuration.model_dump() | {"prices": {"docs__*": 0.001}})
    )
    assert isinstance(await models.policy.request("read"), CallResult)
    assert isinstance(await models.request(), CallResult)
    assert await models.error(BudgetExceededError, alias="", output=120)


async def test_a_rate_of_tokens_counts_the_bound_of_each_request(models: Models) -> None:
    await models.configure(rate={"tokens": 250, "per": "day"})
    for _ in range(2):
        await models.request()
    error = await models.error(RateExceededError)
    assert "may use 250 tokens per day, and this request can have 110" in error.reason
    assert error.data["limit_tokens"] == 250
    await models.request(output=10)  # 10 tokens of input
    too_long = await models.error(InvalidError, output=241)
    assert "can have 251 tokens, but 'key:bot' may use 250 tokens per day" in too_long.reason
    assert isinstance(await models.policy.request("read"), CallResult)


async def test_a_request_without_a_size_is_refused(models: Models) -> None:
    await models.configure()
    for extra in ("", "[]", msgspec.json.encode({"output": -5}).decode()):
        await models.error(InvalidError, extra=extra)
    assert models.policy.reached == []
