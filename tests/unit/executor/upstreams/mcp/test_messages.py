"""JSON-RPC responses of an MCP server: malformed ones, and its errors."""

import json

import pytest

from toolbus_common.errors import UpstreamInvalidError, UpstreamRefusedError
from toolbus_executor.upstreams.mcp import messages


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b'{"result":5}', b"\xff", b"[" * 5000])
def test_a_malformed_response_is_an_upstream_invalid(text: bytes) -> None:
    with pytest.raises(UpstreamInvalidError):
        messages.result_of(messages.read(text))


def test_an_upstreams_error_message_is_kept_but_shortened() -> None:
    error = {"code": -5, "message": "m" * 5000, "data": {"kept": [1]}}
    text = json.dumps({"id": 1, "error": error}).encode()
    with pytest.raises(UpstreamRefusedError) as caught:
        messages.result_of(messages.read(text))
    assert len(caught.value.reason) < 600
    assert caught.value.data == {"upstream_code": -5, "upstream_data": {"kept": [1]}}


@pytest.mark.parametrize("version", ["2024-10-07", "1999-01-01", "2026-07-28", "", None, 5])
def test_a_server_with_an_unsupported_revision_is_refused(version: object) -> None:
    greeting = {"id": 1, "result": {"protocolVersion": version, "capabilities": {}}}
    with pytest.raises(UpstreamInvalidError, match="revision that Toolbus does not support"):
        messages.greeted(messages.read(json.dumps(greeting).encode()))
