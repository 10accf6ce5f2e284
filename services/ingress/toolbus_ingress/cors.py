"""CORS: the origins whose scripts may read responses, and the requests that they may send.

Only origins that the operator lists are allowed, compared byte for byte, and only on paths that
clients of MCP and of models need. Pages for people are excluded, and cookies are never allowed.
"""

import re
from typing import Any

from toolbus_ingress.auth.protected_resource import WELL_KNOWN
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.oauth_proxy import DOCUMENTS
from toolbus_ingress.sessions.sse_writer import Send

_PATHS = re.compile(
    r"/mcp(?:/[^/]+)?|/v1/(?:chat/completions|responses|embeddings|messages(?:/count_tokens)?)|"
    r"/v1/models(?:/.*)?|/oauth/(?:token|register|revoke|jwks|device/code)|"
    rf"{re.escape(WELL_KNOWN)}(?:/.*)?|{'|'.join(map(re.escape, DOCUMENTS))}"
)
_REQUEST_HEADERS = re.compile(
    r"accept|authorization|content-type|dpop|last-event-id|idempotency-key|traceparent|tracestate|"
    r"mcp-[a-z0-9-]{1,64}|x-api-key|"
    r"x-toolbus-(?:servers|tools|models|program|session|inject|suggestion|agent|run)|"
    r"(?:anthropic|openai|x-stainless)-[a-z0-9-]{1,64}"
)
_EXPOSED_HEADERS = (
    b"WWW-Authenticate, Mcp-Session-Id, Retry-After, DPoP-Nonce, X-Should-Retry, X-Toolbus-Model, "
    b"X-Toolbus-Call-Id, X-Toolbus-Fallbacks, X-Toolbus-Suggestion, X-Toolbus-Run-Id, "
    b"X-Toolbus-Error"
)
_METHODS = b"GET, POST, DELETE"
_MAX_AGE_SECONDS = b"600"


def allowed_origin(scope: dict[str, Any], origins: frozenset[str]) -> bytes:
    """Return the request's origin if it is in `origins` and may read this path, else `b""`."""
    if scope["type"] != "http" or not _PATHS.fullmatch(scope["path"]):
        return b""
    sent = [value for name, value in scope["headers"] if name == b"origin"]
    listed = len(sent) == 1 and sent[0].decode("latin-1") in origins
    return sent[0] if listed else b""


def preflight(scope: dict[str, Any]) -> Response | None:
    """Return the response to a CORS preflight request; None for any other request."""
    headers = dict(scope["headers"])
    if scope["method"] != "OPTIONS" or b"access-control-request-method" not in headers:
        return None
    requested = headers.get(b"access-control-request-headers", b"").decode("latin-1").lower()
    allowed = [
        name for name in map(str.strip, requested.split(",")) if _REQUEST_HEADERS.fullmatch(name)
    ]
    return Response(
        204,
        b"",
        (
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", ", ".join(allowed).encode()),
            (b"access-control-max-age", _MAX_AGE_SECONDS),
        ),
    )


def with_cors_headers(send: Send, origin: bytes) -> Send:
    """Return a `send` that adds the headers that let this origin's script read the response."""
    cors_headers = [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED_HEADERS),
        (b"vary", b"Origin"),
    ]

    async def send_with_headers(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *cors_headers]}
        await send(message)

    return send_with_headers
