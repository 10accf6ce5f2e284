"""Run the tool calls that a model suggested, and return the messages for the model."""

import asyncio
from time import time
from typing import Any

import msgspec
from msgspec.structs import replace

from toolbus_common import strict_json
from toolbus_common.contracts import IDEMPOTENCY, TOOLS_CALL, ProtocolFamily
from toolbus_common.errors import ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.model_api.tool_forms import (
    ToolCall,
    messages_of,
    parse_object,
    parse_suggestion,
    result_text,
)
from toolbus_ingress.auth.api_key_header import with_credential
from toolbus_ingress.auth.request_context import Caller, RequestContext
from toolbus_ingress.auth.request_scope import injection_of
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import Headers, check_post, read_request_body
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.sse_writer import DisconnectWatch, Send
from toolbus_ingress.sessions.suggestions import SUGGESTION

TOOLS, EXECUTE = "/v1/mcp/tools", "/v1/mcp/tools/execute"
IS_ERROR = b"x-toolbus-is-error"
IDEMPOTENCY_KEY = b"idempotency-key"


async def execute_tool_calls(
    endpoint: Endpoint, scope: dict[str, Any], receive: Receive, send: Send
) -> Response:
    """Run the tool calls in a body. They are cancelled if the client disconnects.

    Raises:
        RejectedRequestError: the headers or the size of the body are not valid.
        ToolbusError: the caller is not authorized, the body is invalid, or the only call failed.

    """
    headers = with_credential(endpoint.guard.headers(scope))
    check_post(headers, endpoint.largest_body)
    await endpoint.verify_token(headers)
    caller = _searching(endpoint.caller(headers, scope, ""), endpoint, headers)
    suggested_by = endpoint.suggestions.verified(headers.get(SUGGESTION), caller.name)
    body = parse_object(await read_request_body(receive, endpoint.largest_body))
    run = _Run(endpoint, RequestContext(caller, headers, scope, send, suggested_by=suggested_by))
    watch = DisconnectWatch(scope, run.leave)
    try:
        return await run.run(body)
    finally:
        watch.stop()


def _searching(caller: Caller, endpoint: Endpoint, headers: Headers) -> Caller:
    """Return the caller; in the mode `search`, which omits stubs, if tool search is injected."""
    principal = endpoint.directory.now.principal_for(caller.key_digest, time())
    configured = principal.own.inject if principal is not None else None
    if injection_of(headers, configured) is not Mode.SEARCH:
        return caller
    options = replace(caller.code_mode_options, mode=Mode.SEARCH)
    return replace(caller, code_mode_options=options)


class _Run:
    """The tool calls of one request. All calls are cancelled if the client disconnects."""

    def __init__(self, endpoint: Endpoint, context: RequestContext) -> None:
        self._service, self._call_handler, self._context = (
            endpoint.service,
            endpoint.call_handler,
            context,
        )
        self._key = context.headers.get(IDEMPOTENCY_KEY, b"").decode("latin-1")
        self._call_ids: list[str] = []

    def leave(self) -> None:
        if self._key:  # a repeated request returns the outcome
            return
        for call_id in self._call_ids:
            self._service.spawn(self._call_handler.cancel(call_id))

    async def run(self, body: dict[str, Any]) -> Response:
        suggested = parse_suggestion(body)
        if isinstance(suggested, ToolCall):
            text, failed = await self._call(suggested, self._key)
            return _response(suggested.result(text, failed=failed), failed=failed)
        results = await asyncio.gather(*map(self._call_one_of_many, suggested))
        answers = [
            tool_call.result(text, failed=failed)
            for tool_call, (text, failed) in zip(suggested, results, strict=True)
        ]
        failed = any(failed for _, failed in results)
        return _response(messages_of(suggested[0].form, answers), failed=failed)

    async def _call(self, tool_call: ToolCall, key: str) -> tuple[str, bool]:
        """Return the text for the model, and whether the tool failed. Raises `ToolbusError`."""
        params: dict[str, Any] = {"name": tool_call.name, "arguments": tool_call.arguments}
        meta = {IDEMPOTENCY: key} if key else {}
        request = Request(b"null", TOOLS_CALL, params, ProtocolFamily.MODERN, meta)
        call_id = self._service.calls.new_call_id()
        self._call_ids.append(call_id)
        result = msgspec.json.decode(await self._call_handler.run(self._context, request, call_id))
        return result_text(result), result.get("isError") is True

    async def _call_one_of_many(self, tool_call: ToolCall) -> tuple[str, bool]:
        """Run a tool call like `_call`, but return errors as text, so that the others continue."""
        key = self._key and f"{self._key}/{tool_call.call_id}"
        try:
            return await self._call(tool_call, key)
        except ToolbusError as error:
            return f"{error.code}: {error.reason}", True


def _response(body: dict[str, Any], *, failed: bool) -> Response:
    return Response(jsonrpc.OK, strict_json.dump(body), ((IS_ERROR, b"true"),) if failed else ())
