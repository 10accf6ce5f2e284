"""The protocol family of a request, and rejections of malformed ones."""

import json
from typing import Any

import pytest

from toolbus_common.contracts import ProtocolFamily
from toolbus_common.mcp.param_headers import decoded
from toolbus_ingress.protocol_versions import CAPABILITIES, VERSION, ProtocolError, parse_request

NOW = "2026-07-28"


def message(method: str = "tools/list", meta: Any = None, **params: Any) -> dict[str, Any]:
    if meta is not None:
        params["_meta"] = meta
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def modern_meta(version: str = NOW) -> dict[str, Any]:
    return {VERSION: version, CAPABILITIES: {}}


def headers(method: str = "tools/list", name: str | None = None) -> dict[bytes, bytes]:
    found = {b"mcp-protocol-version": NOW.encode(), b"mcp-method": method.encode()}
    return found if name is None else found | {b"mcp-name": name.encode()}


def refusal(body: Any, heads: dict[bytes, bytes]) -> tuple[int, dict[str, Any]]:
    with pytest.raises(ProtocolError) as caught:
        parse_request(body, b"1", heads)
    return caught.value.response.status, json.loads(caught.value.response.body)["error"]


def test_a_modern_request_is_modern() -> None:
    assert (
        parse_request(message(meta=modern_meta()), b"1", headers()).family is ProtocolFamily.MODERN
    )


@pytest.mark.parametrize(
    ("method", "heads"),
    [
        ("tools/list", {}),
        ("tools/list", {b"mcp-protocol-version": b"2025-06-18"}),
        ("initialize", {b"mcp-method": b"initialize"}),
    ],
    ids=["no headers", "legacy version", "initialize"],
)
def test_a_request_without_modern_marks_is_legacy(method: str, heads: dict[bytes, bytes]) -> None:
    assert parse_request(message(method), b"1", heads).family is ProtocolFamily.LEGACY


@pytest.mark.parametrize("meta", [None, {VERSION: NOW}, {CAPABILITIES: {}}])
def test_a_modern_request_needs_version_and_capabilities_in_meta(meta: Any) -> None:
    status, error = refusal(message(meta=meta), headers())
    assert (status, error["code"]) == (400, -32602)


def test_an_unsupported_version_is_rejected_with_the_supported_ones() -> None:
    heads = headers() | {b"mcp-protocol-version": b"2099-01-01"}
    status, error = refusal(message(meta=modern_meta("2099-01-01")), heads)
    assert (status, error["code"]) == (400, -32022)
    assert error["data"] == {"supported": [NOW], "requested": "2099-01-01"}


LIST = message(meta=modern_meta())
CALL = message("tools/call", modern_meta(), name="a__b")
TASK = message("tasks/get", modern_meta(), taskId="t1")


@pytest.mark.parametrize(
    ("body", "heads"),
    [
        (LIST, {b"mcp-method": b"tools/list"}),
        (LIST, {b"mcp-protocol-version": NOW.encode()}),
        (LIST, headers("tools/call")),
        (CALL, headers("tools/call", "a__c")),
        (TASK, headers("tasks/get", "t2")),
    ],
    ids=["no version", "no method", "another method", "another tool", "another task"],
)
def test_headers_that_do_not_repeat_the_body_are_a_mismatch(
    body: dict[str, Any], heads: dict[bytes, bytes]
) -> None:
    status, error = refusal(body, heads)
    assert (status, error["code"]) == (400, -32020)


def test_the_name_header_repeats_the_tool_and_is_optional_for_a_task() -> None:
    assert parse_request(CALL, b"1", headers("tools/call", "a__b")).params["name"] == "a__b"
    assert parse_request(TASK, b"1", headers("tasks/get")).params["taskId"] == "t1"


def test_an_encoded_name_header_is_decoded() -> None:
    assert decoded(b"=?base64?w6Q=?=") == "ä"
    assert decoded(b"=?base64?!!?=") == "=?base64?!!?="


def test_an_unknown_legacy_version_header_is_rejected() -> None:
    heads = {b"mcp-protocol-version": b"1999-01-01", b"mcp-session-id": b"s"}
    status, _ = refusal(message(), heads)
    assert status == 400


@pytest.mark.parametrize("body", [[], [message()], "x", {"jsonrpc": "1.0", "id": 1}])
def test_a_message_that_is_no_single_request_is_rejected(body: Any) -> None:
    status, error = refusal(body, {})
    assert (status, error["code"]) == (400, -32600)
