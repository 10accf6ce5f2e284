"""Guards on the members of a result that are not text content, and on the data of an error."""

import json
from typing import Any

import pytest

from harness.builders.calls import admitted_call
from harness.services.call_runner import RecordedEvents
from harness.services.guarded import TOKEN, guards_of
from toolbus_common.errors import GuardBlockedError, GuardFailedError, UpstreamRefusedError
from toolbus_executor.guards.guarded_call import GuardedCall

REDACT = {"kind": "secrets", "on": ["results"], "action": "redact"}
BLOCK = {**REDACT, "action": "block"}


def guarded_call(guard: dict[str, Any]) -> GuardedCall:
    """Return a call with one guard on its result."""
    call = admitted_call(guards=("g",), run="r1", principal_id="p1")
    return GuardedCall(guards_of(RecordedEvents(), g=guard), call, lambda _: 0)


@pytest.mark.parametrize(
    "result",
    [
        {"content": [], "task": {"taskId": "t1", "statusMessage": TOKEN}},
        {"content": [], "task": [TOKEN]},
        {"content": [], "resultType": TOKEN},
    ],
)
async def test_the_members_of_a_task_are_content_too(result: dict[str, Any]) -> None:
    call = guarded_call(BLOCK)
    with pytest.raises(GuardBlockedError):
        await call.result(json.dumps(result).encode())


async def test_a_repeated_member_beside_a_state_is_not_sent() -> None:
    raw = b'{"requestState":"s","content":[],"a":"%b","a":"b"}' % TOKEN.encode()
    with pytest.raises(GuardFailedError):
        await guarded_call(BLOCK).result(raw)


async def test_the_state_and_the_id_of_a_task_are_not_changed() -> None:
    task = {"taskId": TOKEN, "statusMessage": TOKEN}
    raw = json.dumps({"content": [], "requestState": TOKEN, "task": task}).encode()
    cleaned = json.loads(await guarded_call(REDACT).result(raw))
    assert (cleaned["requestState"], cleaned["task"]["taskId"]) == (TOKEN, TOKEN)
    assert cleaned["task"]["statusMessage"].startswith("[redacted:")


async def test_a_text_in_the_place_of_a_number_of_an_error_is_content() -> None:
    error = UpstreamRefusedError("refused", upstream_code=TOKEN)
    assert isinstance(await guarded_call(BLOCK).error(error), GuardBlockedError)
