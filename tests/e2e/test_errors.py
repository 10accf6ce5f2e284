"""Every error a user can get: one sentence and a code, without delay or stack trace."""

import asyncio
import json
import time
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.gateway.everything_gateway import (
    HASTY_KEY,
    OLD_KEY,
    POOR_KEY,
    READER_KEY,
    ROOT_KEY,
    TEAM_KEY,
    Gateway,
)
from harness.waits import PATIENCE, until_blocking
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG

PING = {"jsonrpc": "2.0", "id": 7, "method": "ping"}


def error_of(answer: Answer, status: int, code: int) -> dict[str, Any]:
    """Return the error, after the checks that hold for every error."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    error = answer.error
    assert error["code"] == code, error
    assert error["message"].strip().endswith((".", "…")) or code == -32602, error
    assert "Traceback" not in answer.body.decode()
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize("secret", ["tbk_nobody_0123456789abcdef", "x", OLD_KEY])
def test_an_unknown_or_expired_key_is_401_with_a_challenge(gateway: Gateway, secret: str) -> None:
    answer = gateway.client(secret).request("tools/list")
    error = error_of(answer, 401, -31001)
    assert "Invalid, revoked or expired API key" in error["message"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="toolbus", error="invalid_token"'
    assert secret not in answer.body.decode() or secret == "x"


def test_a_missing_key_is_401_with_instructions(gateway: Gateway) -> None:
    answer = gateway.client("").request("tools/list")
    assert "Authorization: Bearer" in error_of(answer, 401, -31001)["message"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="toolbus"'


def test_a_call_with_a_revoked_key_reaches_no_server(gateway: Gateway) -> None:
    secret = f"tbk_brief_{'x' * 24}"
    gateway.cluster.put_key("brief", key(secret))
    client = gateway.client(secret)
    until_blocking(lambda: client.request("tools/list").status == 200, "the new key works")
    gateway.cluster.put_key("brief", key(secret, revoked=True))
    until_blocking(lambda: client.request("tools/list").status == 401, "the revoked key is refused")
    error_of(client.call("echo__say", {"text": "too late"}), 401, -31001)
    assert not any(call.get("text") == "too late" for call in gateway.echo.arrived())


def test_a_revocation_takes_effect_soon(gateway: Gateway) -> None:
    secret = f"tbk_timed_{'y' * 24}"
    client = gateway.client(secret)
    durations: list[float] = []
    for _ in range(5):
        gateway.cluster.put_key("timed", key(secret))
        until_blocking(lambda: client.request("ping").status == 200, "the new key works")

        async def revoke(bus: Bus) -> None:
            bucket = await bus.bucket(CONFIG)
            began = time.monotonic()
            revoked = key(secret, revoked=True).model_dump_json().encode()
            await bucket.put("key.timed", revoked)
            while (await asyncio.to_thread(client.request, "ping")).status != 401:
                assert time.monotonic() < began + PATIENCE
            durations.append(time.monotonic() - began)

        gateway.cluster.on_the_bus(revoke)
    print("\nrevoked keys were refused after", *(f"{1000 * t:.0f}" for t in durations), "ms")


@pytest.mark.parametrize("tool", ["echo__push_branch", "echo__nonsense", "nobody__x", "plain", ""])
def test_a_hidden_tool_and_a_missing_tool_are_the_same_error(gateway: Gateway, tool: str) -> None:
    error = error_of(gateway.client(READER_KEY).call(tool), 200, -32602)
    assert error["message"] == f"Unknown tool: {tool}"
    assert error["data"]["code"] == "unknown_tool"
    assert not any(call["tool"] == "push_branch" for call in gateway.echo.arrived())


def test_a_key_lists_exactly_its_tools(gateway: Gateway) -> None:
    assert gateway.client(READER_KEY).tools() == ["echo__say", "git__git_log"]
    assert gateway.client(READER_KEY, "git").tools() == ["git_log"]
    assert gateway.client(READER_KEY, "time").tools() == []
    assert "git__git_commit" in gateway.client(ROOT_KEY).tools()


def test_an_unconfigured_server_is_404(gateway: Gateway) -> None:
    assert gateway.client(ROOT_KEY, "nobody").request("tools/list").status == 404


def until_refused(client: Client, code: str, tool: str, **arguments: Any) -> None:
    """Call until the call fails with this code; it can fail for other reasons before."""
    until_blocking(lambda: client.call(tool, arguments).code == code, code)


def test_an_exceeded_budget_names_level_limit_and_reset(gateway: Gateway) -> None:
    client = gateway.client(POOR_KEY)
    until_refused(client, "budget_exceeded", "echo__say", text="dear")
    error = error_of(client.call("echo__say", {"text": "dear"}), 200, -31003)
    assert error["data"]["level"] == "key:poor"
    assert error["data"]["limit_usd"] == 1
    assert error["data"]["resets_at"].endswith("+00:00")
    assert "key:poor" in error["message"]
    assert "resets at" in error["message"]
    assert client.call("echo__wait", {"id": "free", "seconds": 0}).text == "free"


def test_an_exceeded_customer_budget_names_the_customer_not_the_key(gateway: Gateway) -> None:
    client = gateway.client(TEAM_KEY)
    until_refused(client, "budget_exceeded", "echo__count", id="c")
    assert error_of(client.call("echo__count"), 200, -31003)["data"]["level"] == "customer:acme"


def test_an_exceeded_rate_names_level_limit_and_retry_time(gateway: Gateway) -> None:
    client = gateway.client(HASTY_KEY)
    until_refused(client, "rate_exceeded", "echo__wait", seconds=0)
    error = error_of(client.call("echo__wait", {"seconds": 0}), 200, -31004)
    assert (error["data"]["level"], error["data"]["limit_calls"]) == ("key:hasty", 2)
    assert error["data"]["retry_after"] > 0
    assert error["data"]["retryable"] is True


def test_a_server_that_times_out_is_named(gateway: Gateway) -> None:
    assert "result" in gateway.client().call("short__wait", {"seconds": 0}).json  # connected
    error = error_of(gateway.client().call("short__wait", {"seconds": 30}), 200, -31021)
    assert "short" in error["message"]
    assert error["data"]["callId"]


def test_a_granted_tool_of_a_server_that_was_never_connected_has_an_error_with_its_fix(
    gateway: Gateway,
) -> None:
    error = error_of(gateway.client().call("dead__anything"), 200, -31022)
    assert "Server 'dead' has not listed its tools yet" in error["message"]
    assert error["data"]["retryable"] is True


def test_a_servers_error_keeps_its_text_and_a_tool_error_is_a_result(gateway: Gateway) -> None:
    fault = gateway.client().call("echo__fault")
    assert "out of order" in fault.error["message"]
    complaint = gateway.client().call("echo__complain")
    assert complaint.json["result"]["isError"] is True


MALFORMED: list[tuple[bytes, int]] = [
    (b"", -32700),
    (b"{", -32700),
    (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', -32700),
    (
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"x":' * 80 + b"1" + b"}" * 81,
        -32700,
    ),
    (b'"\xff"', -32700),
    (b"[]", -32600),
    (b'"ping"', -32600),
    (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
    (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
]


@pytest.mark.parametrize(("body", "code"), MALFORMED, ids=lambda value: str(value)[:40])
def test_a_malformed_body_is_rejected_with_the_protocols_code(
    gateway: Gateway, body: bytes, code: int
) -> None:
    answer = gateway.client().post(body)
    assert answer.status == 400
    assert answer.error["code"] == code
    assert answer.json["id"] in (None, 1)


def test_an_unknown_method_is_method_not_found(gateway: Gateway) -> None:
    assert gateway.client().request("tools/lisp").error["code"] == -32601


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "evil.example", 403),
        ("Origin", "https://evil.example", 403),
        ("Content-Type", "text/plain", 415),
        ("Content-Encoding", "gzip", 415),
        ("Accept", "text/html", 406),
        ("X-Long", "x" * 40_000, 431),
    ],
)
def test_the_request_guard_rejects_invalid_headers(
    gateway: Gateway, header: str, value: str, status: int
) -> None:
    assert gateway.client().post(PING, **{header: value}).status == status


def test_a_body_over_the_limit_is_413(gateway: Gateway) -> None:
    body = json.dumps({**PING, "params": {"x": "x" * 5_000_000}}).encode()
    assert gateway.client().post(body).status == 413


def test_get_is_405_and_an_unknown_path_404(gateway: Gateway) -> None:
    client = gateway.client()
    assert client.get(client.endpoint).status == 405
    assert client.get(client.endpoint.replace("/mcp", "/nothing")).status == 404
