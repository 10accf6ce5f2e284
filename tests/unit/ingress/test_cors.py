"""CORS: which paths and headers scripts of listed origins may use."""

from typing import Any

import pytest

from toolbus_ingress import cors

ORIGIN = "https://app.test"


def request(
    path: str, origin: str = ORIGIN, method: str = "OPTIONS", **headers: str
) -> dict[str, Any]:
    items = [(b"origin", origin.encode())] if origin else []
    more = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": items + more}


@pytest.mark.parametrize(
    "path",
    [
        "/mcp", "/mcp/docs", "/oauth/token", "/oauth/register",
        "/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server",
        "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages",
        "/v1/messages/count_tokens", "/v1/models", "/v1/models/local/gemma",
    ],
)  # fmt: skip
def test_scripts_of_listed_origins_may_use_client_paths(path: str) -> None:
    listed = frozenset({ORIGIN})
    assert cors.allowed_origin(request(path), listed) == ORIGIN.encode()
    for origin in ("", "https://app.test.evil", "https://app.test:8443", "http://app.test", "null"):
        assert cors.allowed_origin(request(path, origin), listed) == b""
    twice = request(path)
    twice["headers"] *= 2
    assert cors.allowed_origin(twice, listed) == b""


@pytest.mark.parametrize(
    "path",
    ["/oauth/authorize", "/oauth/consent", "/oauth/account", "/oauth/connect/x", "/api/v1/self",
     "/approvals/1", "/oauth/sign-in", "/mcp/a/b", "/metrics", "/v1/mcp/tools/execute"],
)  # fmt: skip
def test_scripts_may_not_use_pages_and_administration(path: str) -> None:
    assert cors.allowed_origin(request(path), frozenset({ORIGIN})) == b""


def test_a_preflight_allows_only_known_headers_and_methods() -> None:
    result = cors.preflight(
        request(
            "/mcp",
            access_control_request_method="POST",
            access_control_request_headers="Authorization, mcp-param-x, Cookie, x-evil",
        )
    )
    assert result is not None
    headers = dict(result.headers)
    assert headers[b"access-control-allow-headers"] == b"authorization, mcp-param-x"
    assert b"access-control-allow-credentials" not in headers
    assert cors.preflight(request("/mcp", method="POST")) is None
    assert cors.preflight(request("/mcp")) is None


async def test_cors_headers_are_added_and_the_response_is_unchanged() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    result = cors.with_cors_headers(send, ORIGIN.encode())
    await result({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await result({"type": "http.response.body", "body": b"x"})
    headers = dict(sent[0]["headers"])
    assert headers[b"access-control-allow-origin"] == ORIGIN.encode()
    assert (headers[b"a"], headers[b"vary"], sent[1]["body"]) == (b"b", b"Origin", b"x")
