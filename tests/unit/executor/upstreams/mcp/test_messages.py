"""JSON-RPC responses of an MCP server: malformed ones, and its errors."""

import json

import pytest

from toolbus_common.errors import UpstreamFaultError, UpstreamRefusedError
from toolbus_executor.upstreams.mcp import messages


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b'{"result":5}', b"\xff", b"[" * 5000])
def test_nonsense_from_an_upstream_is_a_fault_and_nothing_else(text: bytes) -> None:
    with pytest.raises(UpstreamFaultError):
        messages.result_of(messages.read(text))


def test_an_upstreams_error_is_told_in_its_own_words_but_not_all_of_them() -> None:
    error = {"code": -5, "message": "m" * 5000, "data": {"kept": [1]}}
    text = json.dumps({"id": 1, "error": error}).encode()
    with pytest.raises(UpstreamRefusedError) as caught:
        messages.result_of(messages.read(text))
    assert len(caught.value.reason) < 600
    assert caught.value.data == {"upstream_code": -5, "upstream_data": {"kept": [1]}}
