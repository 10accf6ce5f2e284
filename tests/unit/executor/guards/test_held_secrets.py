"""Toolbus' own secrets in large contents: the event loop does other work during the search."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, cast

import pytest

from harness.builders.calls import admitted_call
from harness.services.call_runner import RecordedEvents
from harness.services.guarded import guards_of
from toolbus_common.contracts.model_calls import CHAT
from toolbus_common.contracts.replies import CallContext
from toolbus_common.errors import (
    GuardBlockedError,
    GuardFailedError,
    ModelRefusedError,
    UpstreamRefusedError,
)
from toolbus_executor.guards.guarded_call import GuardedCall
from toolbus_executor.guards.guarded_response import GuardedResponse
from toolbus_executor.guards.held_secrets import HeldSecrets, secrets_in

CANARY = "a-credential-of-another-server-5d1e"
LARGE_TEXT = "the weather is fine " * 800_000  # 16 MB
# A guard of the arguments only: nothing but the search for the own secrets reads the result.
GUARD = {"kind": "secrets", "on": ["arguments", "prompts"], "action": "redact", "timeout": 60}
CALL: dict[str, Any] = {
    "guards": ("g",), "run": "r1", "principal_id": "p1", "deadline": 4e9,
}  # fmt: skip


def held() -> HeldSecrets:
    """Return secrets with one value."""
    secrets = HeldSecrets()
    secrets.renew("server x", [CANARY])
    return secrets


def call_with(arguments: bytes = b"{}") -> GuardedCall:
    """Return a call that may not send the secret, and whose result may not contain it."""
    call = admitted_call(**CALL, arguments=arguments)
    return GuardedCall(guards_of(RecordedEvents(), g=GUARD), call, lambda _: 0, held())


async def turns_during(work: Awaitable[Any]) -> tuple[int, Any]:
    """Return how often the loop did other work meanwhile, and the result or error."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    try:
        result = await work
    except GuardBlockedError as error:
        result = error
    seen = turns
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    return seen, result


async def test_other_work_goes_on_while_a_large_result_is_searched() -> None:
    body = json.dumps({"content": [{"type": "text", "text": LARGE_TEXT + CANARY}]}).encode()
    turns, result = await turns_during(call_with().result(body))
    assert turns
    assert CANARY.encode() not in result
    assert b"[redacted:toolbus-own-secret:" in result


async def test_other_work_goes_on_while_large_arguments_are_searched() -> None:
    arguments = json.dumps({"text": LARGE_TEXT + CANARY}).encode()
    turns, error = await turns_during(call_with(arguments).sendable())
    assert turns
    assert isinstance(error, GuardBlockedError)
    assert error.data["sent"] is False


async def test_other_work_goes_on_while_a_large_prompt_is_searched() -> None:
    arguments = json.dumps({"messages": [{"role": "user", "content": LARGE_TEXT + CANARY}]})
    call = admitted_call(**CALL, method=CHAT, arguments=arguments.encode())
    guards, context = guards_of(RecordedEvents(), g=GUARD), cast("CallContext", None)
    response = GuardedResponse(guards, call, context, held())
    turns, error = await turns_during(response.check_sent())
    assert turns
    assert isinstance(error, GuardBlockedError)


@pytest.mark.parametrize("name", ["requestState", "resultType", "taskId"])
async def test_a_large_result_without_a_secret_is_the_same_bytes(name: str) -> None:
    body = json.dumps({name: "complete", "content": [{"type": "text", "text": "x" * 9000}]})
    raw = body.encode()
    assert await call_with().result(raw) is raw


async def test_a_result_that_parsers_read_differently_is_withheld() -> None:
    raw = b'{"content":[],"a":"%b","a":"b"}' % CANARY.encode()
    with pytest.raises(GuardFailedError):
        await call_with().result(raw)


async def test_arguments_that_parsers_read_differently_are_not_sent() -> None:
    raised = None
    try:
        await call_with(b'{"a":"%b","a":"b"}' % CANARY.encode()).sendable()
    except GuardFailedError as error:
        raised = error
    assert raised is not None
    assert raised.data["sent"] is False


async def test_an_error_of_a_server_and_of_a_provider_contain_no_secret() -> None:
    error = await call_with().error(UpstreamRefusedError(f"no: {CANARY}", upstream_code=1))
    assert CANARY not in error.reason
    assert "[redacted:" in error.reason
    call = admitted_call(**CALL, method=CHAT)
    context = cast("CallContext", None)
    response = GuardedResponse(guards_of(RecordedEvents(), g=GUARD), call, context, held())
    refused = await response.error(ModelRefusedError(f"no: {CANARY}", status=401, type=CANARY))
    assert CANARY not in f"{refused.reason} {refused.data}"
    assert refused.data["status"] == 401


async def test_a_stored_value_contains_no_secret() -> None:
    stored = await call_with().stored(CANARY.encode(), size=len(CANARY), is_text=True)
    assert stored.startswith(b"[redacted:")


def test_only_headers_named_like_a_secret_are_secret() -> None:
    headers = {"Accept": "application/json", "X-Api-Key": "k" * 20, "Authorization": "Bearer abc"}
    assert secrets_in(headers, {}) == ["k" * 20, "abc"]
