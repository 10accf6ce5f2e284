"""Run the tool calls that a model suggested, and return the messages for the model."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.contracts import IDEMPOTENCY, TOOLS_CALL, ProtocolFamily
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import check_post, read_request_body
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.sse_writer import DisconnectWatch, Send

TOOLS, EXECUTE = "/v1/mcp/tools", "/v1/mcp/tools/execute"
MAX_CONCURRENT = 32
IS_ERROR = b"x-toolbus-is-error"
IDEMPOTENCY_KEY = b"idempotency-key"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call as a model wrote it, in the form of chat completions or of responses."""

    name: str
    arguments: dict[str, Any]
    call_id: str
    chat: bool

    def message_for_model(self, text: str) -> dict[str, Any]:
        """Return the message to append to the model's conversation."""
        if self.chat:
            return {"role": "tool", "tool_call_id": self.call_id, "content": text}
        return {"type": "function_call_output", "call_id": self.call_id, "output": text}


async def execute_tool_calls(
    endpoint: Endpoint, scope: dict[str, Any], receive: Receive, send: Send
) -> Response:
    """Run the tool calls in a body. They are cancelled if the client disconnects.

    Raises:
        RejectedRequestError: the headers or the size of the body are not valid.
        ToolbusError: the caller is not authorized, the body is invalid, or the only call failed.

    """
    headers = endpoint.guard.headers(scope)
    check_post(headers, endpoint.largest_body)
    await endpoint.verify_token(headers)
    caller = endpoint.caller(headers, scope, "")
    body = _object(await read_request_body(receive, endpoint.largest_body))
    run = _Run(endpoint, RequestContext(caller, headers, scope, send))
    watch = DisconnectWatch(scope, run.leave)
    try:
        return await run.run(body)
    finally:
        watch.stop()


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
        if "tool_calls" not in body:
            tool_call = parse_tool_call(body)
            text, failed = await self._call(tool_call, self._key)
            return _response(tool_call.message_for_model(text), failed=failed)
        tool_calls = list(_parse_tool_calls(body["tool_calls"]))
        results = await asyncio.gather(*map(self._call_one_of_many, tool_calls))
        answers = [
            tool_call.message_for_model(text)
            for tool_call, (text, _) in zip(tool_calls, results, strict=True)
        ]
        return _response({"messages": answers}, failed=any(failed for _, failed in results))

    async def _call(self, tool_call: ToolCall, key: str) -> tuple[str, bool]:
        """Return the text for the model, and whether the tool failed. Raises `ToolbusError`."""
        params: dict[str, Any] = {"name": tool_call.name, "arguments": tool_call.arguments}
        meta = {IDEMPOTENCY: key} if key else {}
        request = Request(b"null", TOOLS_CALL, params, ProtocolFamily.MODERN, meta)
        call_id = self._service.calls.new_call_id()
        self._call_ids.append(call_id)
        result = msgspec.json.decode(await self._call_handler.run(self._context, request, call_id))
        return _text(result), result.get("isError") is True

    async def _call_one_of_many(self, tool_call: ToolCall) -> tuple[str, bool]:
        """Run a tool call like `_call`, but return errors as text, so that the others continue."""
        key = self._key and f"{self._key}/{tool_call.call_id}"
        try:
            return await self._call(tool_call, key)
        except ToolbusError as error:
            return f"{error.code}: {error.reason}", True


def parse_tool_call(value: Any) -> ToolCall:
    """Parse a tool call as a model wrote it. Raises `InvalidError`."""
    chat = isinstance(value, dict) and isinstance(value.get("function"), dict)
    function = value["function"] if chat else value
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidError(
            'Invalid tool call. Send it as the model returned it: {"id": …, "function": {"name": '
            '…, "arguments": "{…}"}}, or {"type": "function_call", "call_id": …, "name": …}.'
        )
    call_id = value.get("id" if chat else "call_id")
    if not isinstance(call_id, str):
        raise InvalidError("The tool call has no id. Send the id from the model.")
    return ToolCall(function["name"], _arguments(function.get("arguments")), call_id, chat)


def _parse_tool_calls(value: Any) -> Iterator[ToolCall]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CONCURRENT:
        raise InvalidError(f"tool_calls must be a list of 1 to {MAX_CONCURRENT} tool calls.")
    yield from map(parse_tool_call, value)


def _arguments(value: Any) -> dict[str, Any]:
    """Parse arguments as models write them: an object, or the JSON text of an object."""
    if isinstance(value, str):
        return _object(value.encode()) if value.strip() else {}
    if value is None or isinstance(value, dict):
        return value or {}
    raise InvalidError("The arguments must be a JSON object, or its text.")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = strict_json.parse(body)
    except strict_json.StrictJSONError as error:
        raise InvalidError(f"The body or the arguments must be a JSON object: {error}.") from error
    if not isinstance(found, dict):
        raise InvalidError("The body or the arguments must be a JSON object.")
    return found


def _text(result: dict[str, Any]) -> str:
    """Return a result as the text of a tool message. Content other than text stays JSON."""
    blocks = result.get("content") or []
    if blocks and all(block.get("type") == "text" for block in blocks):
        return "\n".join(str(block.get("text", "")) for block in blocks)
    if not blocks and "structuredContent" in result:
        return strict_json.dump(result["structuredContent"]).decode()
    return strict_json.dump(blocks).decode()


def _response(body: dict[str, Any], *, failed: bool) -> Response:
    return Response(jsonrpc.OK, strict_json.dump(body), ((IS_ERROR, b"true"),) if failed else ())
