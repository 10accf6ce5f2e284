"""The console's client of the REST APIs, in the same process and with the person's credential."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlencode

import msgspec

from toolbus_common.errors import ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_ingress.http.jsonrpc import BAD_REQUEST, Response
from toolbus_ingress.http.request_guard import RejectedRequestError
from toolbus_ingress.rest import problems
from toolbus_ingress.rest.application import Application
from toolbus_ingress.tools_api.tool_calls import EXECUTE, execute_tool_calls

UNAUTHORIZED = 401
FORBIDDEN = 403


class ProblemError(Exception):
    """A problem that an operation returned, with what to do next."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code: str = problem.get("code", "")
        self.detail: str = problem.get("detail", "")
        self.fix: str = problem.get("fix", "")
        self.errors: list[dict[str, Any]] = problem.get("errors", [])
        super().__init__(self.detail)


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a response, and the revision of the configuration that it belongs to."""

    body: bytes
    etag: str

    @property
    def data(self) -> Any:
        """The decoded JSON body; None without a body."""
        return msgspec.json.decode(self.body) if self.body else None


@dataclass(frozen=True, slots=True)
class ApiClient:
    """Sends requests to the REST APIs as one person."""

    application: Application
    host: bytes
    credential: str
    client: tuple[str, int] | None = None

    async def get(self, path: str, **query: Any) -> Any:
        """Return the decoded answer of a GET request. Raises `ProblemError`."""
        return (await self.send("GET", path, query=query)).data

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        media_type: str = "application/json",
        if_match: str = "",
    ) -> Answer:
        """Send one request. A body of bytes is sent unchanged. Raises `ProblemError`."""
        content = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            content = json.dumps(body).encode()
        headers = [
            (b"host", self.host),
            (b"authorization", f"Bearer {self.credential}".encode()),
            (b"content-length", b"%d" % len(content)),
        ]
        if body is not None:
            headers.append((b"content-type", media_type.encode()))
        if if_match:
            headers.append((b"if-match", if_match.encode()))
        answer = await self._run(self._scope(method, path, query or {}, headers), _body(content))
        sent = dict(answer.headers)
        if answer.status >= BAD_REQUEST:
            raise ProblemError(answer.status, _problem(answer))
        return Answer(answer.body, sent.get(b"etag", b"").decode())

    async def _run(self, scope: dict[str, Any], receive: Receive) -> Response:
        """Return the response. Tool calls are answered without FastAPI, as over HTTP."""
        if scope["path"] != EXECUTE:
            return await self.application.run(scope, receive)
        endpoint = self.application.endpoint
        try:
            return await execute_tool_calls(endpoint, scope, receive, _no_stream)
        except RejectedRequestError as error:
            return problems.rejection(error)
        except ToolbusError as error:
            return problems.failure(error, scope, endpoint.protected_resource)

    def _scope(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        headers: list[tuple[bytes, bytes]],
    ) -> dict[str, Any]:
        given = {name: _text(value) for name, value in query.items() if value not in ("", None)}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": urlencode(given).encode(),
            "headers": headers,
            "client": self.client,
            "server": None,
        }


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _problem(answer: Response) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.json.decode(answer.body)) if answer.body else {}


async def _no_stream(_message: Any) -> None:
    """Ignore a part of a stream: the whole response is returned."""


def _body(content: bytes) -> Receive:
    parts = iter([{"type": "http.request", "body": content, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(parts, {"type": "http.disconnect"})

    return receive
