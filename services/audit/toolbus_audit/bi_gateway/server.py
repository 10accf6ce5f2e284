"""HTTP server of the BI gateway. It logs every request."""

import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from secrets import token_hex
from time import monotonic
from typing import Any

from toolbus_audit.bi_gateway.errors import BAD_ARGUMENTS, REJECTIONS, GatewayError
from toolbus_audit.bi_gateway.request import LONGEST_SQL, GatewayRequest, parse_request
from toolbus_common.errors import UnavailableError
from toolbus_common.http_server.body import BodyTooLargeError, CutShortError, read_body
from toolbus_common.http_server.limits import Limits
from toolbus_common.service.asgi_server import NotServedError, serving

log = logging.getLogger(__name__)

LIMITS = Limits(head=64 * 1024, idle_seconds=30.0, connections=256, per_address=64)
DRAIN_SECONDS = 5.0
_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
}

Execute = Callable[[GatewayRequest], Awaitable[tuple[str, bytes]]]  # the format and the body
Rejected = Callable[[str, str, str], None]  # entrance, code, client address
Headers = dict[str, str]


class GatewayApp:
    """ASGI application with ClickHouse's interface; `execute` raises `GatewayError`."""

    def __init__(self, execute: Execute, rejected: Rejected) -> None:
        self._execute = execute
        self._rejected = rejected

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        if scope["path"] in ("/ping", "/replicas_status"):
            await _send(send, 200, b"Ok.\n", {}, head=scope["method"] == "HEAD")
            return
        began, client = monotonic(), scope.get("client")
        request: GatewayRequest | None = None
        try:
            request = await self._read(scope, receive)
            form, body = await self._execute(request)
            headers = {
                "x-clickhouse-format": form,
                "content-type": _TYPES.get(form, "text/plain; charset=UTF-8"),
            }
            status, code = 200, 0
        except GatewayError as error:
            status, code, body = error.status, error.code, error.text.encode()
            headers = {"x-clickhouse-exception-code": str(code)}
            if code in REJECTIONS:
                self._rejected("reader", REJECTIONS[code], client[0] if client else "")
        query_id = (request and request.query_id) or token_hex(8)
        headers |= {"x-clickhouse-query-id": _plain(query_id), "x-clickhouse-timezone": "UTC"}
        _log_request(request, query_id, code, len(body), monotonic() - began)
        if request is not None and request.gzip and status == 200 and body:  # noqa: PLR2004
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        await _send(send, status, body, headers, head=scope["method"] == "HEAD")

    async def _read(self, scope: Any, receive: Any) -> GatewayRequest:
        if scope["path"] not in ("", "/", "/query"):
            raise GatewayError(BAD_ARGUMENTS, "Unknown path; send queries to / or check /ping.")
        if scope["method"] not in ("GET", "POST", "HEAD"):
            raise GatewayError(BAD_ARGUMENTS, "Unsupported method; use GET or POST.")
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            body = await read_body(receive, LONGEST_SQL)
        except CutShortError:
            raise GatewayError(
                BAD_ARGUMENTS, "The request body is incomplete; send it again."
            ) from None
        except BodyTooLargeError:
            reason = f"The statement exceeds {LONGEST_SQL} bytes; shorten it."
            raise GatewayError(BAD_ARGUMENTS, reason) from None
        return parse_request(scope["query_string"].decode("latin-1"), headers, body)


async def _send(send: Any, status: int, body: bytes, headers: Headers, *, head: bool) -> None:
    defaults = {"content-type": "text/plain; charset=UTF-8", "content-length": str(len(body))}
    merged = defaults | headers
    lines = [(name.encode(), value.encode("latin-1")) for name, value in merged.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": b"" if head else body})


def _log_request(
    request: GatewayRequest | None, query_id: str, code: int, size: int, seconds: float
) -> None:
    """Log a request with the digest of its statement, whose text may be confidential."""
    log.info(
        "audit.read",
        extra={
            "reader": _plain(request.user) if request else "",
            "query_id": _plain(query_id),
            "statement": sha256(request.sql.encode()).hexdigest()[:16] if request else "",
            "code": code,
            "bytes": size,
            "ms": round(seconds * 1000, 1),
        },
    )


def _plain(text: str) -> str:
    """Return the first 64 characters without those that are unsafe in headers and logs."""
    return "".join(
        sign for sign in text[:64] if sign.isascii() and (sign.isalnum() or sign in "-_.")
    )


@asynccontextmanager
async def serve_readers(
    execute: Execute, rejected: Rejected, host: str, port: int
) -> AsyncIterator[int]:
    """Serve while the context is entered; yield the port.

    Raises `UnavailableError` if the port is in use.
    """
    try:
        async with serving(
            GatewayApp(execute, rejected), "readers", host, port, LIMITS, DRAIN_SECONDS
        ) as listener:
            yield listener.port
    except NotServedError as error:
        reason = f"The BI gateway cannot listen on {host}:{port}; check that the port is free."
        raise UnavailableError(reason) from error
