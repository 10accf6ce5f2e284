"""Tasks whose handle is all there is of them: whose they are, and for how long."""

import json
from collections.abc import Callable
from time import time
from typing import Any

import pytest
from msgspec.structs import replace

from harness.builders.calls import requested_call
from harness.builders.configurations import ConfigFeed, configured
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.contracts import CallRequested, ProtocolFamily
from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_common.errors import InvalidError
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.mcp import tasks
from toolbus_ingress.mcp.tasks import DONE_SECONDS, LARGEST_DONE, Tasks, wants_task
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.sealed_claims import ClaimSealer

KEY_DIGEST = "a" * 64
RESULT = b'{"content":[{"type":"text","text":"1.50"}],"x":1.50}'


class Edge:
    """One key that may use the tools of one server."""

    def __init__(self) -> None:
        directory = ConfigView()
        self.catalogue = Catalogue(directory)
        self.tasks = Tasks(ClaimSealer(b"k" * KEY_BYTES), self.catalogue)
        self._feed = ConfigFeed(directory.projection.apply_change)
        self._feed.declare(configured(servers={"s": {"url": "http://127.0.0.1:9/mcp"}}))
        self.grant("s__*")
        self._feed.loaded()

    def grant(self, *tools: str) -> None:
        self._feed.key("bot", KEY_DIGEST, *tools)

    def caller(self, server: str = "") -> Caller:
        found = self.catalogue.holder(KEY_DIGEST, ())
        assert found is not None
        return Caller(KEY_DIGEST, *found, server)

    def task_request(self, handle: str, method: str = "tasks/get", **more: Any) -> Any:
        request = Request(
            b"1", method, {"taskId": handle}, more.pop("family", ProtocolFamily.LEGACY)
        )
        task = self.tasks.stored_result(request, self.caller(**more))
        return None if task is None else json.loads(task)

    def completed(self, result: bytes = RESULT) -> str:
        """Return the handle of a call that was answered at once."""
        return str(json.loads(self.tasks.completed(result, _call()))["task"]["taskId"])


def _call() -> CallRequested:
    return requested_call(server="s", key_digest=KEY_DIGEST, family=ProtocolFamily.LEGACY)


def test_a_result_round_trips_through_its_handle() -> None:
    edge = Edge()
    handle = edge.completed()
    request = Request(b"1", "tasks/result", {"taskId": handle}, ProtocolFamily.LEGACY)
    task = edge.tasks.stored_result(request, edge.caller())
    assert task is not None
    assert task.startswith(RESULT[:-1])
    assert json.loads(task)["_meta"] == {tasks.RELATED: {"taskId": handle}}


@pytest.mark.parametrize(
    ("result", "status"), [(RESULT, "completed"), (b'{"isError":true}', "failed")]
)
def test_a_task_created_ended_has_its_final_state(result: bytes, status: str) -> None:
    edge = Edge()
    assert edge.task_request(edge.completed(result))["status"] == status


def test_the_largest_result_fits_its_handle_and_a_larger_one_is_rejected() -> None:
    edge = Edge()
    largest = b'{"content":"%b"}' % (b"x" * (LARGEST_DONE - 14))
    assert len(largest) == LARGEST_DONE
    assert edge.task_request(edge.completed(largest), "tasks/result")["content"]
    with pytest.raises(InvalidError, match="without 'task'"):
        edge.completed(largest + b" ")


def _other_server(edge: Edge, handle: str) -> Any:
    return edge.task_request(handle, server="other")


def _withdrawn(edge: Edge, handle: str) -> Any:
    edge.grant("s__others")
    return edge.task_request(handle)


@pytest.mark.parametrize("of_task", [_other_server, _withdrawn])
def test_a_result_requires_the_grant_for_its_tool(of_task: Callable[[Edge, str], Any]) -> None:
    edge = Edge()
    with pytest.raises(InvalidError, match="Unknown task"):
        of_task(edge, edge.completed())


def test_notifications_of_a_task_require_the_grant_for_its_tool() -> None:
    edge = Edge()
    _, key, handle = edge.tasks.created(b'{"task":{"taskId":"own"}}', _call())
    assert key == "s/own"
    assert edge.tasks.holds(handle, edge.caller())
    assert not edge.tasks.holds(handle, replace(edge.caller(), key_digest="b" * 64))
    edge.grant("s__others")
    assert not edge.tasks.holds(handle, edge.caller())


def test_a_handle_with_a_result_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = Edge()
    handle = edge.completed()
    monkeypatch.setattr(tasks, "time", lambda: time() + DONE_SECONDS + 1)
    with pytest.raises(InvalidError, match="Unknown task"):
        edge.task_request(handle)


def test_only_sessions_have_sealed_tasks() -> None:
    edge = Edge()
    assert edge.task_request(edge.completed(), family=ProtocolFamily.MODERN) is None
    assert edge.task_request("x") is None


def test_a_stateless_client_requests_no_task() -> None:
    task_request = {"name": "t", "task": {}}
    assert wants_task(Request(b"1", "tools/call", task_request, ProtocolFamily.LEGACY))
    assert not wants_task(Request(b"1", "tools/call", task_request, ProtocolFamily.MODERN))
    assert not wants_task(Request(b"1", "prompts/get", task_request, ProtocolFamily.LEGACY))
