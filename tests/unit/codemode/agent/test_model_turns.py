"""Streams of model requests: an event that cannot be read ends the request."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.builders.calls import admitted_call
from harness.builders.configurations import configuration_change
from toolbus_codemode.agent.model_turns import ModelTurns
from toolbus_common.access.config_snapshot import ConfigView, hash_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallRequested, CallResult, Notification
from toolbus_common.contracts.agent_runs import AgentCall
from toolbus_common.contracts.model_calls import CHAT, CHUNK
from toolbus_common.errors import UpstreamInvalidError

DIGEST = "d" * 64


@pytest.mark.parametrize("error", [TypeError("unhashable"), KeyError("type"), RecursionError()])
async def test_an_event_of_another_form_is_an_error_of_the_provider(error: Exception) -> None:
    cancelled: list[str] = []

    async def request(_call: CallRequested, receive: Callable[[Notification], None]) -> CallResult:
        receive(Notification(CHUNK, b"data: {}\n\n", 1))
        receive(Notification(CHUNK, b"data: {}\n\n", 2))
        return CallResult(b"", 2)

    async def cancel(call_id: str) -> None:
        cancelled.append(call_id)

    def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work)

    def on_part(_part: bytes) -> None:
        raise error

    calls = SimpleNamespace(
        new_call_id=lambda: "b1", address=lambda call: call, request=request, cancel=cancel,
        spawn=spawn,
    )  # fmt: skip
    service: Any = SimpleNamespace(calls=calls, spawn=spawn)
    directory = ConfigView()
    declared = Configuration.model_validate(
        {
            "providers": {"m": {"kind": "openai", "url": "http://m.example/v1"}},
            "keys": {"bot": {"models": ["*"], "secret_hash": hash_of(DIGEST)}},
        }
    )
    directory.projection.apply_change(configuration_change(declared))
    directory.projection.apply_change(None)
    principal = directory.now.principal_for(DIGEST, 1.0)
    assert principal is not None
    outer = admitted_call(call_id="a1", key_digest=DIGEST)
    turns = ModelTurns(
        service, directory, outer, AgentCall(CHAT, "m/x", stream=True), "a1", outer.traceparent,
        lambda *_: None, lambda *_: None, lambda *_: None,
    )  # fmt: skip
    with pytest.raises(UpstreamInvalidError, match="invalid event"):
        await turns.ask(principal, b"{}", lambda: None, cast("Any", on_part))
    await asyncio.sleep(0)
    assert cancelled == ["b1"]
