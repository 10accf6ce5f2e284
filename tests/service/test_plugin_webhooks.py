"""Plugins behind a webhook: executor answers requests on the bus with the responses of a URL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from time import time
from typing import Any

import pytest

from harness.engines.nats_server import NatsAt
from harness.guards.running_guards import ALLOWED
from harness.network.json_server import Request, Response, answering
from harness.waits import until_async
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CheckedCall, HookReply
from toolbus_common.egress import Egress
from toolbus_common.egress.policy import STRICT
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins.requests import PluginFaultError, PluginRequests
from toolbus_common.secrets import Secrets, stores_of
from toolbus_common.settings import Settings
from toolbus_executor.plugins.webhooks import Webhooks
from toolbus_executor.transport.dialer_factory import DialerFactory

Ask = Callable[..., Any]


@pytest.fixture
async def buses(settings: Settings, nats_server: NatsAt) -> AsyncIterator[tuple[Bus, Bus]]:
    """Connect as policy and as executor."""
    policy, executor = (
        Bus(name, settings.nats_url, nats_server.seed(name)) for name in ("policy", "executor")
    )
    await policy.open()
    await executor.open()
    yield policy, executor
    await policy.close()
    await executor.close()


class Hooked:
    """A webhook that is declared, and asked by policy."""

    def __init__(self, buses: tuple[Bus, Bus]) -> None:
        self.received: list[Request] = []
        self.response = Response(body={"verdict": "refuse", "reason": "no", "version": "3"})
        self.declared: dict[str, Plugin] = {}
        self._policy, self._executor = buses
        self._requests = PluginRequests(self._policy, lambda: self.declared)

    def respond(self, request: Request) -> Response:
        """Return the response of the webhook."""
        self.received.append(request)
        return self.response

    async def ask(self, egress: Egress = ALLOWED, **fields: Any) -> HookReply:
        """Ask the plugin about a call, with its webhook started for it."""
        with ExitStack() as servers:
            port = servers.enter_context(answering(self.respond))
            plugin = Plugin.model_validate(
                {
                    "url": f"http://127.0.0.1:{port}/hook",
                    "hooks": ["before_decision"],
                    "sees": ["arguments"],
                    "may": ["refuse"],
                    "timeout": 30,
                    **fields,
                }
            )
            self.declared = {"probe": plugin}
            dialers, secrets = DialerFactory(egress), Secrets(stores_of({"RISK": "s3cret"}))
            webhooks = Webhooks(self._executor, secrets, dialers, lambda: self.declared)
            await webhooks.reconcile()
            try:
                await until_async(self._is_there, "the webhook has subscribed")
                return await self._ask()
            finally:
                await webhooks.close()

    async def _is_there(self) -> bool:
        try:
            await self._policy.request("tb.hook.before_decision.probe", b"{}", 1.0)
        except LookupError:
            return False
        except TimeoutError:
            return True
        return True

    async def _ask(self) -> HookReply:
        call = CheckedCall(
            call_id="c-1", customer="acme", key="k", server="docs", tool="burn",
            deadline=time() + 60,
        )  # fmt: skip
        plugin, content = self.declared["probe"], {"arguments": {"page": 7}}
        return await self._requests.ask("probe", plugin, "before_decision", call, content)


@pytest.fixture
def hooked(buses: tuple[Bus, Bus]) -> Hooked:
    """Return a webhook that policy asks."""
    return Hooked(buses)


async def test_a_webhook_receives_the_request_with_its_secret_and_its_response_is_the_answer(
    hooked: Hooked,
) -> None:
    answer = await hooked.ask(headers={"x-token": "${env:RISK}"})
    assert (answer.verdict, answer.reason, answer.version) == ("refuse", "no", "3")
    request = hooked.received[-1]
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["x-token"] == "s3cret"
    assert request.json["content"] == {"arguments": {"page": 7}}
    assert request.json["point"] == "before_decision"


async def test_an_address_that_egress_forbids_is_not_asked(hooked: Hooked) -> None:
    with pytest.raises(PluginFaultError, match=r"it failed: .*loopback"):
        await hooked.ask(STRICT)
    assert hooked.received == []


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(503), "HTTP 503"),
        (Response(302, headers={"location": "http://169.254.169.254/"}), "redirects"),
        (Response(body=b"<html>"), "not JSON"),
        (Response(body=b"[]"), "not a JSON object"),
        (Response(body={"verdict": 7}), "not match the schema of answers"),
    ],
)
async def test_a_response_that_is_no_answer_is_a_failure_with_a_reason(
    hooked: Hooked, response: Response, reason: str
) -> None:
    hooked.response = response
    with pytest.raises(PluginFaultError, match=reason):
        await hooked.ask()


async def test_a_webhook_that_takes_too_long_is_a_failure(hooked: Hooked) -> None:
    there = asyncio.Event()
    loop = asyncio.get_running_loop()
    respond = hooked.respond

    def late(request: Request) -> Response:
        if request.json.get("point"):
            asyncio.run_coroutine_threadsafe(there.wait(), loop).result()
        return respond(request)

    hooked.respond = late  # type: ignore[method-assign]
    try:
        with pytest.raises(PluginFaultError, match=r"no answer within 0\.2 s"):
            await hooked.ask(timeout="200ms")
    finally:
        there.set()
