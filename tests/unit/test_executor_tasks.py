"""Tasks between the families, without I/O: both forms, and what a server may answer instead."""

import asyncio
import json
from collections.abc import Iterator
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench import Answers, admitted
from toolbus_common.contracts import CallAdmitted, CatalogEntry, ProtocolFamily
from toolbus_common.errors import ToolbusError, UpstreamFaultError, UpstreamRefusedError
from toolbus_executor.mcp_messages import task_formats
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp_tasks.elicitation import keeper_of
from toolbus_executor.upstreams.mcp_tasks.service import Tasking

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
    """Answers one after the other, and what was asked."""

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self.asked: list[CallAdmitted] = []

    async def once(self, call: CallAdmitted, _seconds: float, _caller: Caller) -> bytes:
        self.asked.append(call)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    async def told(self, *, modern: bool, seconds: float = 5, **more: Any) -> Any:
        """What a caller of the other family is told."""
        family = ProtocolFamily.LEGACY if modern else ProtocolFamily.MODERN
        call = admitted("t", {"taskId": "1"}, family=family, capabilities=TAKES, **more)
        tasking = Tasking()
        execution = {"execution": {"taskSupport": "optional"}}
        tasking.learn([CatalogEntry(name="t", definition=execution)])
        caller = Caller(call, Answers())
        return json.loads(await tasking.ask(call, seconds, caller, self.once, modern=modern))


def test_each_form_of_a_task_becomes_the_other() -> None:
    assert (
        json.loads(task_formats.old(json.dumps({**FLAT, "resultType": "task"}).encode())) == NESTED
    )
    found = json.loads(task_formats.new(json.dumps(NESTED).encode(), "task"))
    assert found == {**FLAT, "resultType": "task"}


def test_a_task_that_lives_for_ever_says_so_in_both_forms() -> None:
    assert json.loads(task_formats.old(b'{"taskId":"1"}'))["ttl"] is None
    assert json.loads(task_formats.new(b'{"taskId":"1"}'))["ttlMs"] is None


def test_a_tools_error_is_a_failed_task_before_and_a_completed_one_now() -> None:
    flat = {**FLAT, "status": "completed", "result": {"isError": True, "content": []}}
    assert json.loads(task_formats.old(json.dumps(flat).encode())) == {**NESTED, "status": "failed"}


async def test_a_failed_task_of_a_session_is_told_with_how_it_failed() -> None:
    failed = {**NESTED, "status": "failed"}
    tools_own = Server(failed, {"isError": True, "content": []})
    told = await tools_own.told(modern=False, method="tasks/get")
    assert told["status"] == "completed"
    assert told["result"]["isError"]
    broken = Server(failed, UpstreamRefusedError("Broke.", upstream_code=-5, upstream_data=[1]))
    told = await broken.told(modern=False, method="tasks/get")
    assert told["status"] == "failed"
    assert told["error"] == {"code": -5, "message": "Broke.", "data": [1]}


async def test_the_servers_own_name_of_a_task_is_in_no_result() -> None:
    meta = {RELATED: {"taskId": "1"}, "own": 1.50}
    server = Server({**NESTED, "status": "completed"}, {"content": [], "_meta": meta})
    told = await server.told(modern=False, method="tasks/get")
    assert told["result"]["_meta"] == {"own": 1.50}
    asked = {"message": "?", "_meta": meta}
    assert json.loads(task_formats.unrelated(json.dumps(asked).encode())) == {
        "message": "?", "_meta": {"own": 1.50},
    }  # fmt: skip


async def test_questions_already_answered_are_not_put_again() -> None:
    asks = {**FLAT, "status": "input_required", "pollIntervalMs": 0, "inputRequests": {"q": {}}}
    more = {**asks, "inputRequests": {"q": {}, "r": {"method": "roots/list"}}}
    server = Server({}, asks, asks, more)
    extra = '{"inputResponses":{"q":{"action":"accept"}}}'
    told = await server.told(modern=True, method="tasks/result", extra=extra)
    assert told["inputRequests"] == {"r": {"method": "roots/list"}}
    assert [call.method for call in server.asked] == ["tasks/update", *["tasks/get"] * 3]
    assert json.loads(server.asked[0].arguments)["inputResponses"] == {"q": {"action": "accept"}}
    assert all(TAKES[1:-1] in call.capabilities for call in server.asked)


async def test_a_result_is_waited_for_no_longer_than_there_is_time() -> None:
    server = Server(*[{**FLAT, "pollIntervalMs": 5000}] * 9)
    with pytest.raises(TimeoutError):
        await server.told(modern=True, method="tasks/result", seconds=0.05)


async def test_a_task_that_was_cancelled_has_no_result() -> None:
    server = Server({**FLAT, "status": "cancelled"})
    with pytest.raises(UpstreamRefusedError, match="cancelled already"):
        await server.told(modern=True, method="tasks/result")


async def test_a_server_that_makes_no_task_of_a_call_has_answered_it() -> None:
    assert await Server({"content": []}).told(modern=False) == {"content": []}


@given(st.binary(max_size=60) | st.sampled_from([b'{"task":5}', b'{"taskId":5}', b'{"status":[]}']))
def test_whatever_a_server_says_of_a_task_is_an_answer_or_a_fault(text: bytes) -> None:
    async def every() -> None:
        for modern in (True, False):
            for method in ("tools/call", "tasks/get", "tasks/cancel", "tasks/result"):
                server, extra = Server(*[text] * 9), '{"task":{}}' if modern else ""
                try:
                    await server.told(modern=modern, method=method, extra=extra, seconds=0.01)
                except (ToolbusError, TimeoutError):
                    continue
                except ValueError:  # not one of ours: the test reads what was passed on
                    assert len(server.asked) == 1

    asyncio.run(every())


async def test_a_malformed_task_is_a_named_fault() -> None:
    with pytest.raises(UpstreamFaultError, match="malformed"):
        await Server({"status": ["working"]}).told(modern=True, method="tasks/get")


@pytest.mark.parametrize(
    ("answers", "keeper"),
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
def test_answers_name_the_process_that_asked(answers: Any, keeper: str) -> None:
    arguments = {"taskId": "1", "inputResponses": answers}
    assert keeper_of(admitted("t", arguments, method="tasks/update")) == keeper
    assert keeper_of(admitted("t", arguments, deadline=time())) == ""


async def test_the_questions_of_a_task_begun_for_a_caller_come_back_to_it() -> None:
    insists = UpstreamRefusedError(
        "No.", upstream_code=-32021, upstream_data={"requiredCapabilities": json.loads(TAKES)}
    )
    begun = {**FLAT, "resultType": "task"}
    asks = {**FLAT, "status": "input_required", "inputRequests": {"q": {"method": "roots/list"}}}
    first = Server(insists, begun, asks)
    told = await first.told(modern=True)
    assert told["inputRequests"] == asks["inputRequests"]
    extra = {"inputResponses": {"q": {"roots": []}}, "requestState": told["requestState"]}
    done = {**FLAT, "status": "completed", "result": {"content": []}}
    second = Server({}, done)
    assert await second.told(modern=True, extra=json.dumps(extra)) == {"content": []}
    assert [call.method for call in second.asked] == ["tasks/update", "tasks/get"]
    assert all(json.loads(call.arguments)["taskId"] == "1" for call in second.asked)
