"""Equal model requests at the same time: one of them is sent to the provider."""

import asyncio
import json
from typing import Any

import pytest

from harness.apis.model_provider import DONE, ModelProvider, ModelRequest, complete, stream
from harness.services.model_gateway import ModelGateway, provider
from harness.waits import until
from toolbus_common.config import Provider
from toolbus_common.contracts import CallError, CallResult
from toolbus_common.contracts.model_calls import CacheTerms, ModelCall

COST = 25  # micro-dollars of the provider's usual response


class HeldProvider:
    """A provider whose responses to the text `held` wait for `release`."""

    def __init__(self, model: ModelProvider, answer: Any = complete) -> None:
        self._model, self._answer = model, answer
        self.release = asyncio.Event()
        model.answer = self.respond

    async def respond(self, request: ModelRequest) -> None:
        """Answer one request."""
        if text_of(request) == "held":
            await self.release.wait()
        await self._answer(request)

    def received(self, text: str = "held") -> list[ModelRequest]:
        """Return the requests with this text."""
        return [each for each in self._model.requests if text_of(each) == text]


def text_of(request: ModelRequest) -> str:
    """Return the text of a request."""
    return str(request.json["messages"][0]["content"])


def cached(model: ModelProvider) -> Provider:
    """Return a provider with a cache."""
    return provider(model, cache={})


def asked(text: str = "held", *, streamed: bool = False, control: str = "") -> dict[str, Any]:
    """Return the fields of a call with a request that may be cached."""
    body = {"model": "alias", "messages": [{"role": "user", "content": text}], "stream": streamed}
    return {
        "body": body,
        "streamed": streamed,
        "extra": ModelCall(alias="team", stream=streamed, cache=control).encode(),
        "cache": CacheTerms("customer:acme").encode(),
    }


async def begun(gateway: ModelGateway, held: HeldProvider, call: dict[str, Any]) -> None:
    """Begin the equal requests 1, 2 and 3. The first one is at the provider."""
    await gateway.begin("1", **call)
    await until(held.received, "the first request")
    for number in ("2", "3"):
        await gateway.begin(number, **call)
    # Requests are received in order: after this one, the others wait.
    assert isinstance(await gateway.call("other", **asked("other")), CallResult)


@pytest.mark.parametrize("streamed", [False, True])
async def test_one_of_several_equal_requests_is_sent_and_paid(
    gateway: ModelGateway, model: ModelProvider, *, streamed: bool
) -> None:
    async def answer(request: ModelRequest) -> None:
        await (stream if request.json["stream"] else complete)(request)

    held = HeldProvider(model, answer)
    async with gateway.executor(p=cached(model)):
        await begun(gateway, held, asked(streamed=streamed))
        assert len(held.received()) == 1
        held.release.set()
        first, *others = [await gateway.end(number) for number in ("1", "2", "3")]
        assert len(held.received()) == 1
        assert gateway.note("1").status == "miss"
        assert (await gateway.outcome("1"))["charge"] == COST
        for number, reply in zip(("2", "3"), others, strict=True):
            assert reply.body == first.body
            assert gateway.note(number).status == "hit"
            if streamed:
                assert gateway.chunks(number) == gateway.chunks("1")
                assert gateway.chunks(number).endswith(DONE)
            outcome = await gateway.outcome(number)
            assert (outcome["event"], outcome["charge"]) == ("call.completed", 0)
            used = await gateway.event(number, "model.used")
            assert (used["cache"], used["saved"], used["input_tokens"]) == ("hit", COST, 0)


async def test_the_cancellation_of_the_first_request_does_not_end_the_others(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    held = HeldProvider(model)
    async with gateway.executor(p=cached(model)):
        await begun(gateway, held, asked())
        await gateway.cancel("1")
        assert isinstance(await gateway.end("1"), CallError)
        await until(lambda: len(held.received()) > 1, "another request in its place")
        held.release.set()
        replies = [await gateway.end(number) for number in ("2", "3")]
        assert len(held.received()) == 2
        assert {json.loads(each.body)["model"] for each in replies} == {"m"}
        charges = [(await gateway.outcome(number))["charge"] for number in ("2", "3")]
        statuses = [gateway.note(number).status for number in ("2", "3")]
        assert sorted(zip(charges, statuses, strict=True)) == [(0, "hit"), (COST, "miss")]


async def test_the_failure_of_the_first_request_is_not_that_of_the_others(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        if text_of(request) == "held" and len(held.received()) == 1:
            await request.reply({"error": {"message": "no"}}, 400)
        else:
            await complete(request)

    held = HeldProvider(model, answer)
    async with gateway.executor(p=cached(model)):
        await begun(gateway, held, asked())
        held.release.set()
        assert isinstance(await gateway.end("1"), CallError)
        for number in ("2", "3"):
            assert isinstance(await gateway.end(number), CallResult)
            assert (await gateway.outcome(number))["charge"] == COST
        assert len(held.received()) == 3


async def test_a_request_that_wants_a_new_response_waits_for_no_other(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    held = HeldProvider(model)
    async with gateway.executor(p=cached(model)):
        await gateway.begin("1", **asked())
        await gateway.begin("2", **asked(control="no-cache"))
        await until(lambda: len(held.received()) == 2, "both requests")
        held.release.set()
        for number in ("1", "2"):
            assert isinstance(await gateway.end(number), CallResult)
            assert (await gateway.outcome(number))["charge"] == COST
