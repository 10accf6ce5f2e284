"""The REST APIs: administration and approvals below `/api`, and tools as functions."""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from toolbus_common.errors import OverloadedError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_ingress import console
from toolbus_ingress.console.session import SessionCookie
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RejectedRequestError
from toolbus_ingress.live import stream as live
from toolbus_ingress.live.feed import LiveFeed
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.rest import problems
from toolbus_ingress.sessions.sse_writer import Send
from toolbus_ingress.tools_api.tool_calls import EXECUTE, TOOLS, execute_tool_calls

if TYPE_CHECKING:
    from toolbus_ingress.console.application import Console
    from toolbus_ingress.rest.application import Application


_RUNS, _EXPLAIN = "/v1/agent/runs", "/v1/mcp/tools/explain"


@dataclass(slots=True)
class RestApis:
    """Serves the REST APIs with FastAPI, except for the execution of tool calls.

    FastAPI is imported and its application is built at the first request, because this takes half a
    second, which would delay every start of the gateway. Tool calls bypass FastAPI, because it
    would take more time per call than ingress itself (ADR 36).
    """

    endpoint: Endpoint
    console_cookie: SessionCookie
    live_feed: LiveFeed
    _application: "Application | None" = None
    _console: "Console | None" = None
    _building: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response | None:
        """Return the response to a request for a path that `serves` accepts."""
        if self.endpoint.overloaded:
            error = OverloadedError("Too many requests are in flight. Retry.")
            return self.failure(error, scope)
        return await self.endpoint.run_limited(scope, self._answer(scope, receive, send))

    def failure(self, error: ToolbusError, scope: MutableMapping[str, Any]) -> Response:
        """Return an error as a problem."""
        return problems.failure(error, scope, self.endpoint.protected_resource)

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response | None:
        try:
            if scope["path"] == EXECUTE and scope["method"] == "POST":
                return await execute_tool_calls(self.endpoint, scope, receive, send)
            if scope["path"] in (live.PATH, console.LIVE) and scope["method"] == "GET":
                await self._watch(scope, send)
                return None
            if console.serves(scope["path"]):
                return await (self._console or await self._built_console()).run(scope, receive)
            application = self._application or await self._built()
            return await application.run(scope, receive)
        except RejectedRequestError as error:
            return problems.rejection(error)
        except ToolbusError as error:
            return self.failure(error, scope)

    async def _watch(self, scope: dict[str, Any], send: Send) -> None:
        """Send calls as they happen; the console's credential is in its cookie."""
        headers = self.endpoint.guard.headers(scope)
        if scope["path"] == console.LIVE:
            session = self.console_cookie.read(headers)
            credential = session.credential if session is not None else ""
            headers = {**headers, b"authorization": f"Bearer {credential}".encode()}
        await live.watch_calls(self.endpoint, self.live_feed, scope, headers, send)

    async def _built(self) -> "Application":
        async with self._building:
            if self._application is None:
                self._application = await asyncio.to_thread(_build, self.endpoint)
            return self._application

    async def _built_console(self) -> "Console":
        rest = await self._built()
        async with self._building:
            if self._console is None:
                make = partial(_build_console, self.endpoint, rest, self.console_cookie)
                self._console = await asyncio.to_thread(make)
            return self._console


def serves(path: str) -> bool:
    """Return whether a path belongs to the REST APIs."""
    own = path in (TOOLS, EXECUTE, _EXPLAIN) or path == _RUNS or path.startswith(f"{_RUNS}/")
    return own or path == "/api" or path.startswith("/api/") or console.serves(path)


def _build(endpoint: Endpoint) -> "Application":
    from toolbus_ingress import rest_application  # noqa: PLC0415 - see `RestApis`

    return rest_application.build(endpoint)


def _build_console(endpoint: Endpoint, rest: "Application", cookie: SessionCookie) -> "Console":
    from toolbus_ingress.console.application import Console  # noqa: PLC0415 - see `RestApis`

    return Console(endpoint, rest, cookie)
