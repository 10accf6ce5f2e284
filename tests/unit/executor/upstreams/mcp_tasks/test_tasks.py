"""Tasks across protocol families, without I/O: both forms, and other responses of a server."""

import asyncio
import json
from collections.abc import Iterator
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.services.call_runner import ReplyRecorder, admitted
from toolbus_common.contracts import CallAdmitted, CatalogEntry, ProtocolFamily
from toolbus_common.errors import ToolbusError, UpstreamInvalidError, UpstreamRefusedError
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp_tasks.elicitation import holder_of
from toolbus_executor.upstreams.mcp_tasks.service import TaskSupport

TAKES = '{"extensions":{"io.modelcontextprotocol/tasks":{}}}'
RELATED = "io.modelcontextprotocol/related-task"
FLAT: dict[str, Any] = {
    "taskId": "1", "status": "working", "createdAt": "a", "lastUpdatedAt": "b",
    "ttlMs": 5, "pollIntervalMs": 7, "statusMessage": "soon",
}  # fmt: skip
NESTED: dict[str, Any] = {
    "taskId": "1", "status": "working", "createdAt": "a", "lastUpdatedAt": "b",
    "ttl": 5, "pollInterval": 7, "statusMessage": "soon",
}  # fmt: skip


class Server:
    """Scripted responses, and the requests received."""

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self.requests: list[CallAdmitted] = []

    async def once(self, call: CallAdmitted, _seconds: float, _caller: Caller) -> bytes:
        self.requests.append(call)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    async def response_of(self, *, modern: bool, seconds: float = 5, **more: Any) -> Any:
        """Return the response to a caller of the other family."""
        family = ProtocolFamily.LEGACY if modern else ProtocolFamily.MODERN
        call = admitted("t", {"taskId": "1"}, family=family, capabilities=TAKES, **more)
        tasking = TaskSupport()
        execution = {"execution": {"taskSupport": "optional"}}
        tasking.learn([CatalogEntry(name="t", definition=execution)])
        caller = Caller(call, ReplyRecorder())
        return json.loads(await tasking.request(call, seconds, caller, self.once, modern=modern))


def test_each_form_of_a_task_converts_to_the_other() -> None:
    assert (
        json.loads(task_formats.old(json.dumps({**FLAT, "resultType": "task"}).encode())) == NESTED
    )
    found = json.loads(task_formats.new(json.dumps(NESTED).encode(), "task"))
    assert found == {**FLAT, "resultType": "task"}


def test_a_task_without_expiry_has_none_in_both_forms() -> None:
    assert json.loads(task_formats.old(b'{"taskId":"1"}'))["ttl"] is None
    assert json.loads(task_formats.new(b'{"taskId":"1"}'))["ttlMs"] is None


def test_a_tools_error_is_a_failed_legacy_and_a_completed_modern_task() -> None:
    flat = {**FLAT, "status": "completed", "result": {"isError": True, "content": []}}
    assert json.loads(task_formats.old(json.dumps(flat).encode())) == {**NESTED, "status": "failed"}


async def test_a_failed_task_of_a_session_based_server_has_its_error() -> None:
    failed = {**NESTED, "status": "failed"}
    tools_own = Server(failed, {"isError": True, "content": []})
    result = await tools_own.response_of(modern=False, method="tasks/get")
    assert result["status"] == "completed"
    assert result["result"]["isError"]
    broken = Server(failed, UpstreamRefusedError("Broke.", upstream_code=-5, upstream_data=[1]))
    result = await broken.response_of(modern=False, method="tasks/get")
    assert result["status"] == "failed"
    assert result["error"] == {"code": -5, "message": "Broke.", "data": [1]}


async def test_no_result_contains_the_servers_task_metadata() -> None:
    meta = {RELATED: {"taskId": "1"}, "own": 1.50}
    server = Server({**NESTED, "status": "completed"}, {"content": [], "_meta": meta})
    result = await server.response_of(modern=False, method="tasks/get")
    assert result["result"]["_meta"] == {"own": 1.50}
    message = {"message": "?", "_meta": meta}
    assert json.loads(task_formats.unrelated(json.dumps(message).encode())) == {
        "message": "?", "_meta": {"own": 1.50},
    }  # fmt: skip


async def test_answered_input_requests_are_not_repeated() -> None:
    pending = {**FLAT, "status": "input_required", "pollIntervalMs": 0, "inputRequests": {"q": {}}}
    more = {**pending, "inputRequests": {"q": {}, "r": {"method": "roots/list"}}}
    server = Server({}, pending, pending, more)
    extra = '{"inputResponses":{"q":{"action":"accept"}}}'
    result = await server.response_of(modern=True, method="tasks/result", extra=extra)
    assert result["inputRequests"] == {"r": {"method": "roots/list"}}
    assert [call.method for call in server.requests] == ["tasks/update", *["tasks/get"] * 3]
    assert json.loads(server.requests[0].arguments)["inputResponses"] == {"q": {"action": "accept"}}
    assert all(TAKES[1:-1] in call.capabilities for call in server.requests)


async def test_a_result_is_awaited_until_the_deadline() -> None:
    server = Server(*[{**FLAT, "pollIntervalMs": 5000}] * 9)
    with pytest.raises(TimeoutError):
        await server.response_of(modern=True, method="tasks/result", seconds=0.05)


async def test_a_task_that_was_cancelled_has_no_result() -> None:
    server = Server({**FLAT, "status": "cancelled"})
    with pytest.raises(UpstreamRefusedError, match="cancelled already"):
        await server.response_of(modern=True, method="tasks/result")


async def test_a_server_that_creates_no_task_has_responded() -> None:
    assert await Server({"content": []}).response_of(modern=False) == {"content": []}


@given(st.binary(max_size=60) | st.sampled_from([b'{"task":5}', b'{"taskId":5}', b'{"status":[]}']))
def test_any_bytes_as_a_task_are_a_result_or_an_upstream_error(text: bytes) -> None:
    async def every() -> None:
        for modern in (True, False):
            for method in ("tools/call", "tasks/get", "tasks/cancel", "tasks/result"):
                server, extra = Server(*[text] * 9), '{"task":{}}' if modern else ""
                try:
                    await server.response_of(
                        modern=modern, method=method, extra=extra, seconds=0.01
                    )
                except (ToolbusError, TimeoutError):
                    continue
                except ValueError:  # an error of the test: it reads the forwarded result
                    assert len(server.requests) == 1

    asyncio.run(every())


async def test_a_malformed_task_is_an_upstream_error() -> None:
    with pytest.raises(UpstreamInvalidError, match="malformed"):
        await Server({"status": ["working"]}).response_of(modern=True, method="tasks/get")


@pytest.mark.parametrize(
    ("answers", "holder"),
    [
        ({"task.0a1b.x.q1": {}}, "0a1b"),
        ({"theirs": {}, "task.0a1b.x.q1": {}}, "0a1b"),
        ({"task.0a1b.x": {}}, ""),
        ({"task.tb.call.x.q1": {}}, ""),
        ({"task.>.x.q1": {}}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_answers_name_the_process_that_holds_the_requests(answers: Any, holder: str) -> None:
    arguments = {"taskId": "1", "inputResponses": answers}
    assert holder_of(admitted("t", arguments, method="tasks/update")) == holder
    assert holder_of(admitted("t", arguments, deadline=time())) == ""


async def test_the_input_requests_of_a_task_created_for_a_caller_reach_it() -> None:
    insists = UpstreamRefusedError(
        "No.", upstream_code=-32021, upstream_data={"requiredCapabilities": json.loads(TAKES)}
    )
    created = {**FLAT, "resultType": "task"}
    pending = {**FLAT, "status": "input_required", "inputRequests": {"q": {"method": "roots/list"}}}
    first = Server(insists, created, pending)
    result = await first.response_of(modern=True)
    assert result["inputRequests"] == pending["inputRequests"]
    extra = {"inputResponses": {"q": {"roots": []}}, "requestState": result["requestState"]}
    done = {**FLAT, "status": "completed", "result": {"content": []}}
    second = Server({}, done)
    assert await second.response_of(modern=True, extra=json.dumps(extra)) == {"content": []}
    assert [call.method for call in second.requests] == ["tasks/update", "tasks/get"]
    assert all(json.loads(call.arguments)["taskId"] == "1" for call in second.requests)
