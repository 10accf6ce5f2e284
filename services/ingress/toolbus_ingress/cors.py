"""Scripts of other origins in browsers: which may read our answers, and what they may send.

Only origins that the operator lists, byte for byte, and only where MCP clients need it: never the
pages people see, and never with cookies.
"""

import re
from collections.abc import Iterator
from typing import Any

from toolbus_ingress.auth.protected_resource import WELL_KNOWN
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.oauth_proxy import DOCUMENTS
from toolbus_ingress.sessions.sse_writer import Send

_PATHS = re.compile(
    r"/mcp(?:/[^/]+)?|/oauth/(?:token|register|revoke|jwks|device/code)|"
    rf"{re.escape(WELL_KNOWN)}(?:/.*)?|{'|'.join(map(re.escape, DOCUMENTS))}"
)
_SENT = re.compile(
    r"accept|authorization|content-type|dpop|last-event-id|idempotency-key|traceparent|tracestate|"
    r"mcp-[a-z0-9-]{1,64}|x-toolbus-(?:servers|tools|program)"
)
_TOLD = b"WWW-Authenticate, Mcp-Session-Id, Retry-After, DPoP-Nonce"
_METHODS = b"GET, POST, DELETE"
_SECONDS = b"600"


def origin_of(scope: dict[str, Any], origins: frozenset[str]) -> bytes:
    """The listed origin whose script asks for what it may read; empty for any other."""
    if scope["type"] != "http" or not _PATHS.fullmatch(scope["path"]):
        return b""
    told = [value for name, value in scope["headers"] if name == b"origin"]
    listed = len(told) == 1 and told[0].decode("latin-1") in origins
    return told[0] if listed else b""


def preflight(scope: dict[str, Any]) -> Response | None:
    """The answer to a browser that asks whether a script may send something; None for others."""
    asked = dict(scope["headers"])
    if scope["method"] != "OPTIONS" or b"access-control-request-method" not in asked:
        return None
    wanted = asked.get(b"access-control-request-headers", b"").decode("latin-1").lower()
    headers = (
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", ", ".join(_sendable(wanted)).encode()),
        (b"access-control-max-age", _SECONDS),
    )
    return Response(204, b"", headers)


def _sendable(wanted: str) -> Iterator[str]:
    return (each for each in map(str.strip, wanted.split(",")) if _SENT.fullmatch(each))


def readable(send: Send, origin: bytes) -> Send:
    """The same, with a word to the browser that this origin's script may read the answer."""
    more = [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _TOLD),
        (b"vary", b"Origin"),
    ]

    async def told(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return told
