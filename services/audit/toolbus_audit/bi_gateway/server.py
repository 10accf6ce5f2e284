"""The HTTP side: requests in, answers out, a line in the log for each."""

import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from secrets import token_hex
from time import monotonic
from typing import Any

from toolbus_audit.bi_gateway.errors import BAD_ARGUMENTS, REJECTING, RefusedError
from toolbus_audit.bi_gateway.request import LONGEST_SQL, GatewayRequest, read
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

Answer = Callable[[GatewayRequest], Awaitable[tuple[str, bytes]]]  # the format and the body
Rejected = Callable[[str, str, str], None]  # the entrance, why, the client's address
Headers = dict[str, str]


class Listener:
    """An ASGI application that answers as ClickHouse does; `answer` raises `RefusedError`."""

    def __init__(self, answer: Answer, rejected: Rejected) -> None:
        self._answer = answer
        self._rejected = rejected

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["path"] in ("/ping", "/replicas_status"):
            await _send(send, 200, b"Ok.\n", {}, head=scope["method"] == "HEAD")
            return
        began, client = monotonic(), scope.get("client")
        asked: GatewayRequest | None = None
        try:
            asked = await self._read(scope, receive)
            form, body = await self._answer(asked)
            headers = {
                "x-clickhouse-format": form,
                "content-type": _TYPES.get(form, "text/plain; charset=UTF-8"),
            }
            status, code = 200, 0
        except RefusedError as error:
            status, code, body = error.status, error.code, error.text.encode()
            headers = {"x-clickhouse-exception-code": str(code)}
            if code in REJECTING:
                self._rejected("reader", REJECTING[code], client[0] if client else "")
        query_id = (asked and asked.query_id) or token_hex(8)
        headers |= {"x-clickhouse-query-id": _plain(query_id), "x-clickhouse-timezone": "UTC"}
        _told(asked, query_id, code, len(body), monotonic() - began)
        if asked is not None and asked.gzip and status == 200 and body:  # noqa: PLR2004
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        await _send(send, status, body, headers, head=scope["method"] == "HEAD")

    async def _read(self, scope: Any, receive: Any) -> GatewayRequest:
        if scope["path"] not in ("", "/", "/query"):
            raise RefusedError(BAD_ARGUMENTS, "Ask at / or look at /ping.")
        if scope["method"] not in ("GET", "POST", "HEAD"):
            raise RefusedError(BAD_ARGUMENTS, "Ask by GET or POST.")
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            body = await read_body(receive, LONGEST_SQL)
        except CutShortError:
            raise RefusedError(BAD_ARGUMENTS, "The statement did not arrive.") from None
        except BodyTooLargeError:
            why = f"The statement is over {LONGEST_SQL} bytes."
            raise RefusedError(BAD_ARGUMENTS, why) from None
        return read(scope["query_string"].decode("latin-1"), headers, body)


async def _send(send: Any, status: int, body: bytes, headers: Headers, *, head: bool) -> None:
    told = {"content-type": "text/plain; charset=UTF-8", "content-length": str(len(body))} | headers
    lines = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": b"" if head else body})


def _told(
    asked: GatewayRequest | None, query_id: str, code: int, size: int, seconds: float
) -> None:
    """Who asked, and how it went. The statement may hold anything: its digest finds it again."""
    log.info(
        "audit.read",
        extra={
            "reader": _plain(asked.user) if asked else "",
            "query_id": _plain(query_id),
            "statement": sha256(asked.sql.encode()).hexdigest()[:16] if asked else "",
            "code": code,
            "bytes": size,
            "ms": round(seconds * 1000, 1),
        },
    )


def _plain(text: str) -> str:
    """Text for a header or a log: what is not a sign of a name is left out."""
    return "".join(
        sign for sign in text[:64] if sign.isascii() and (sign.isalnum() or sign in "-_.")
    )


@asynccontextmanager
async def listening(answer: Answer, rejected: Rejected, host: str, port: int) -> AsyncIterator[int]:
    """Answer while this is entered; the port. Raises `UnavailableError` when it is taken."""
    try:
        async with serving(
            Listener(answer, rejected), "readers", host, port, LIMITS, DRAIN_SECONDS
        ) as listener:
            yield listener.port
    except NotServedError as error:
        reason = f"Readers cannot be answered on {host}:{port}; is the port taken?"
        raise UnavailableError(reason) from error
