"""The REST APIs: administration and approvals below `/api`, and tools as functions."""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolbus_common.errors import OverloadedError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RejectedRequestError
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.rest import problems
from toolbus_ingress.sessions.sse_writer import Send
from toolbus_ingress.tools_api.tool_calls import EXECUTE, TOOLS, execute_tool_calls

if TYPE_CHECKING:
    from toolbus_ingress.rest.application import Application


_RUNS = "/v1/agent/runs"


@dataclass(slots=True)
class RestApis:
    """Serves the REST APIs with FastAPI, except for the execution of tool calls.

    FastAPI is imported and its application is built at the first request, because this takes half a
    second, which would delay every start of the gateway. Tool calls bypass FastAPI, because it
    would take more time per call than ingress itself (ADR 36).
    """

    endpoint: Endpoint
    _application: "Application | None" = None
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

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response:
        try:
            if scope["path"] == EXECUTE and scope["method"] == "POST":
                return await execute_tool_calls(self.endpoint, scope, receive, send)
            application = self._application or await self._built()
            return await application.run(scope, receive)
        except RejectedRequestError as error:
            return problems.rejection(error)
        except ToolbusError as error:
            return self.failure(error, scope)

    async def _built(self) -> "Application":
        async with self._building:
            if self._application is None:
                self._application = await asyncio.to_thread(_build, self.endpoint)
            return self._application


def serves(path: str) -> bool:
    """Return whether a path belongs to the REST APIs."""
    own = path in (TOOLS, EXECUTE) or path == _RUNS or path.startswith(f"{_RUNS}/")
    return own or path == "/api" or path.startswith("/api/")


def _build(endpoint: Endpoint) -> "Application":
    from toolbus_ingress import rest_application  # noqa: PLC0415 - see `RestApis`

    return rest_application.build(endpoint)
