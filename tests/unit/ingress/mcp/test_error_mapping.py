"""How a request failed, in the words of its family."""

import json
from typing import Any

import pytest

from toolbus_common.contracts import ProtocolFamily
from toolbus_common.errors import (
    BudgetExceededError,
    InvalidArgumentsError,
    OverloadedError,
    PolicyDownError,
    ToolbusError,
    UnknownToolError,
    UpstreamRefusedError,
)
from toolbus_ingress.mcp.error_mapping import error_response
from toolbus_ingress.protocol_versions import Request

Expected = tuple[int, dict[str, Any]]


def failing(error: ToolbusError, family: ProtocolFamily, method: str = "tools/call") -> Expected:
    answer = error_response(error, Request(b'"r"', method, {}, family), "c1")
    body = json.loads(answer.body)
    assert body["id"] == "r"
    return answer.status, body["error"]


def refused(code: Any, family: ProtocolFamily, method: str = "tools/call", **more: Any) -> Expected:
    return failing(UpstreamRefusedError("Not so", upstream_code=code, **more), family, method)


@pytest.mark.parametrize("family", ProtocolFamily)
@pytest.mark.parametrize("code", [-32050, -32603, -1, 0, 42])
def test_a_servers_own_error_passes_unchanged(family: ProtocolFamily, code: int) -> None:
    data = {"reason": "by design", "list": [1, None]}
    status, error = refused(code, family, upstream_data=data)
    assert (status, error) == (200, {"code": code, "message": "Not so", "data": data})


@pytest.mark.parametrize("family", ProtocolFamily)
def test_a_servers_error_without_data_gets_none(family: ProtocolFamily) -> None:
    assert refused(-32050, family)[1] == {"code": -32050, "message": "Not so"}


@pytest.mark.parametrize(
    ("family", "code"),
    [(ProtocolFamily.MODERN, -32602), (ProtocolFamily.LEGACY, -32002)],
    ids=["modern", "legacy"],
)
@pytest.mark.parametrize("upstream_code", [-32602, -32002])
def test_a_missing_resource_has_the_code_of_its_family(
    family: ProtocolFamily, code: int, upstream_code: int
) -> None:
    assert refused(upstream_code, family, "resources/read")[1]["code"] == code
    missing = UnknownToolError.named("file:///a", "resources/read")
    status, error = failing(missing, family, "resources/read")
    assert (status, error["code"]) == (200, code)
    assert error["message"] == "Unknown resource: file:///a"


@pytest.mark.parametrize("family", ProtocolFamily)
@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "completion/complete"])
def test_any_other_unknown_name_is_invalid_params(family: ProtocolFamily, method: str) -> None:
    status, error = failing(UnknownToolError.named("x", method), family, method)
    assert (status, error["code"]) == (200, -32602)
    assert error["data"]["callId"] == "c1"
    assert refused(-32602, family, method)[1]["code"] == -32602


def test_a_missing_capability_is_a_bad_request_in_the_stateless_family() -> None:
    needed: Any = {"requiredCapabilities": {"sampling": {}}}
    status, error = refused(-32021, ProtocolFamily.MODERN, upstream_data=needed)
    assert (status, error["code"], error["data"]) == (400, -32021, needed)
    assert refused(-32021, ProtocolFamily.LEGACY, upstream_data=needed)[0] == 200


def test_an_unknown_method_of_a_server_is_not_found_in_the_stateless_family() -> None:
    assert refused(-32601, ProtocolFamily.MODERN, "completion/complete")[0] == 404
    assert refused(-32601, ProtocolFamily.LEGACY, "completion/complete")[0] == 200


@pytest.mark.parametrize("code", [None, "text", 1.5, [1]])
def test_an_error_without_a_code_gets_the_gateways(code: Any) -> None:
    status, error = refused(code, ProtocolFamily.MODERN)
    assert (status, error["code"]) == (200, -31025)
    assert error["data"]["code"] == "upstream_refused"


@pytest.mark.parametrize("family", ProtocolFamily)
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(BudgetExceededError("Spent."), 200, -31003), (PolicyDownError("Nobody."), 503, -31012)],
)
def test_gateway_errors_are_equal_in_both_families(
    family: ProtocolFamily, error: ToolbusError, status: int, code: int
) -> None:
    found_status, found = failing(error, family)
    assert (found_status, found["code"]) == (status, code)
    assert found["data"]["callId"] == "c1"


def test_a_gateway_error_code_is_not_passed_off_as_the_servers() -> None:
    _, error = failing(BudgetExceededError("Spent.", upstream_code=-1), ProtocolFamily.MODERN)
    assert error["code"] == -31003


@pytest.mark.parametrize(
    "data",
    [None, [], {"elicitations": "x"}, {"elicitations": [5, {"url": 5}, {"url": "x" * 9999}]}],
)
def test_an_invalid_page_and_another_familys_code_are_omitted(data: Any) -> None:
    status, error = refused(-32042, ProtocolFamily.MODERN, upstream_data=data)
    assert (status, error["code"]) == (400, -32021)
    assert error["message"].endswith("open the page and retry: ")


def test_a_family_that_defines_the_code_gets_it_with_data() -> None:
    data = {"elicitations": [{"mode": "url", "url": "https://example.org"}]}
    status, error = refused(-32042, ProtocolFamily.LEGACY, upstream_data=data)
    assert (status, error) == (200, {"code": -32042, "message": "Not so", "data": data})


@pytest.mark.parametrize("family", ProtocolFamily)
@pytest.mark.parametrize(
    ("data", "seconds"), [({}, b"1"), ({"retry_after": 0.2}, b"1"), ({"retry_after": 2.1}, b"3")]
)
def test_a_client_rejected_for_overload_gets_a_retry_time(
    family: ProtocolFamily, data: dict[str, Any], seconds: bytes
) -> None:
    answer = error_response(
        OverloadedError("Full.", **data), Request(b"1", "tools/call", {}, family), "c1"
    )
    assert answer.status == 503
    assert (b"retry-after", seconds) in answer.headers


@pytest.mark.parametrize("family", ProtocolFamily)
def test_invalid_arguments_become_a_result_for_the_model(family: ProtocolFamily) -> None:
    error = InvalidArgumentsError("Invalid arguments: 'a' is missing.")
    body = json.loads(error_response(error, Request(b"1", "tools/call", {}, family), "c1").body)
    result = body["result"]
    assert result.pop("resultType", None) == (
        "complete" if family is ProtocolFamily.MODERN else None
    )
    assert result["content"] == [{"type": "text", "text": "Invalid arguments: 'a' is missing."}]
    assert result["isError"] is True
    failed = {"code": "invalid_arguments", "retryable": False, "callId": "c1"}
    assert result["_meta"] == {"dev.toolbus/failed": failed}


def test_invalid_arguments_of_a_task_are_an_error_because_no_task_was_created() -> None:
    error = InvalidArgumentsError("Invalid arguments: 'a' is missing.")
    request = Request(b"1", "tools/call", {"task": {}}, ProtocolFamily.LEGACY)
    assert json.loads(error_response(error, request, "c1").body)["error"]["code"] == -32602
