"""Tasks whose handle is all there is of them: whose they are, and for how long."""

import json
from collections.abc import Callable
from time import time
from typing import Any

import pytest
from msgspec.structs import replace

from toolbus_common.access.config_snapshot import ConfigView, hash_of
from toolbus_common.config import Configuration, Key, Server
from toolbus_common.contracts import CallRequested, ProtocolFamily
from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_common.errors import InvalidError
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION, KEY_PREFIX
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
        self._directory = ConfigView()
        self.catalogue = Catalogue(self._directory)
        self.tasks = Tasks(ClaimSealer(b"k" * KEY_BYTES), self.catalogue)
        self._revision = 0
        declared = Configuration(servers={"s": Server(url="http://127.0.0.1:9/mcp")})
        self._change(CONFIGURATION, declared.model_dump_json())
        self.grant("s__*")
        self._directory.projection.apply_change(None)

    def grant(self, *tools: str) -> None:
        made = Key(tools=tools, secret_hash=hash_of(KEY_DIGEST))
        self._change(f"{KEY_PREFIX}bot", made.model_dump_json())

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

    def _change(self, name: str, value: str) -> None:
        self._revision += 1
        self._directory.projection.apply_change(Change(name, value.encode(), self._revision))


def _call() -> CallRequested:
    return CallRequested(
        call_id="c", reply_to="r", server="s", tool="t", key_digest=KEY_DIGEST,
        family=ProtocolFamily.LEGACY,
        deadline=0, traceparent="",
    )  # fmt: skip


def test_a_result_comes_out_of_its_handle_as_it_went_in() -> None:
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
def test_a_task_that_was_over_when_it_began_says_how_it_ended(result: bytes, status: str) -> None:
    edge = Edge()
    assert edge.task_request(edge.completed(result))["status"] == status


def test_the_largest_result_fits_its_handle_and_a_larger_one_is_refused() -> None:
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
def test_a_result_is_for_who_may_still_use_its_tool(of_task: Callable[[Edge, str], Any]) -> None:
    edge = Edge()
    with pytest.raises(InvalidError, match="Unknown task"):
        of_task(edge, edge.completed())


def test_news_of_a_task_are_for_who_may_still_use_its_tool() -> None:
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


def test_only_sessions_have_such_tasks() -> None:
    edge = Edge()
    assert edge.task_request(edge.completed(), family=ProtocolFamily.MODERN) is None
    assert edge.task_request("x") is None


def test_a_stateless_client_requests_no_task() -> None:
    task_request = {"name": "t", "task": {}}
    assert wants_task(Request(b"1", "tools/call", task_request, ProtocolFamily.LEGACY))
    assert not wants_task(Request(b"1", "tools/call", task_request, ProtocolFamily.MODERN))
    assert not wants_task(Request(b"1", "prompts/get", task_request, ProtocolFamily.LEGACY))
