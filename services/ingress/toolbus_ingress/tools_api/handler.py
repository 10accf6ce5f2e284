"""Explicit execution: tools told as functions, and a model's suggestions run when somebody asks."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.contracts import IDEMPOTENCY, TOOLS_CALL, ProtocolFamily
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.http_server.body import Receive
from toolbus_ingress.auth.request_context import Caller, Visit
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import check_post, whole_body
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.sse_writer import Presence, Send

PATHS = {"/v1/mcp/tools": "GET", "/v1/mcp/tools/execute": "POST"}
MOST_AT_ONCE = 32
IS_ERROR = b"x-toolbus-is-error"
IDEMPOTENCY_KEY = b"idempotency-key"

_STATUS = {
    "unauthorized": 401, "budget_exceeded": 402, "unknown_tool": 404, "rate_exceeded": 429,
    "invalid": 400, "upstream_timeout": 504, "upstream_failed": 502, "upstream_dead": 502,
    "upstream_fault": 502, "upstream_refused": 502, "breaker_open": 503, "outcome_unknown": 502,
    "idempotency_conflict": 422, "call_under_way": 409, "outcome_not_kept": 410,
}  # fmt: skip
_REFUSED = 403


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A tool call as a model wrote it, in the form of chat completions or of responses."""

    name: str
    arguments: dict[str, Any]
    call_id: str
    chat: bool

    def answered(self, text: str) -> dict[str, Any]:
        """What goes back to the model, ready to be appended to its conversation."""
        if self.chat:
            return {"role": "tool", "tool_call_id": self.call_id, "content": text}
        return {"type": "function_call_output", "call_id": self.call_id, "output": text}


class Explicit:
    """`GET /v1/mcp/tools` and `POST /v1/mcp/tools/execute`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response | None:
        """Tell the tools a key may use, or run one suggestion or several at once."""
        verb = PATHS[scope["path"]]
        if scope["method"] != verb:
            return Response(405, b"", ((b"allow", verb.encode()),))
        work = self._list(scope) if verb == "GET" else self._execute(scope, receive, send)
        answer = await self._endpoint.bounded(scope, work)
        return answer and reworded(answer)

    async def _list(self, scope: dict[str, Any]) -> Response:
        headers = self._endpoint.guard.headers(scope)
        await self._endpoint.introduce(headers)
        caller = self._endpoint.caller(headers, scope, "", scope["query_string"])
        listed = self._endpoint.catalogue.listed(
            "tools/list", caller.bounds, "", ProtocolFamily.LEGACY, caller.mode
        )
        tools = msgspec.json.decode(listed)["tools"]
        told = {
            "object": "list",
            "data": [_as_function(tool) for tool in tools],
            "auto_execute": [t["name"] for t in tools if self._automatic(caller, t["name"])],
        }
        return Response(jsonrpc.OK, strict_json.dump(told))

    def _automatic(self, caller: Caller, name: str) -> bool:
        server, inner = self._endpoint.catalogue.names.meant(name, "tools", "")
        key = self._endpoint.directory.now.principal(caller.name).own
        return granted(key.auto_execute, full_name(server, inner))

    async def _execute(self, scope: dict[str, Any], receive: Receive, send: Send) -> Response:
        headers = self._endpoint.guard.headers(scope)
        check_post(headers, self._endpoint.largest_body)
        await self._endpoint.introduce(headers)
        caller = self._endpoint.caller(headers, scope, "")
        told = _object(await whole_body(receive, self._endpoint.largest_body))
        run = _Run(self._endpoint, Visit(caller, headers, scope, send))
        presence = Presence(scope, run.leave)
        try:
            return await run.all(told)
        finally:
            presence.settled()


class _Run:
    """The suggestions of one request; a client that leaves takes all of them back."""

    def __init__(self, endpoint: Endpoint, visit: Visit) -> None:
        self._service, self._relay, self._visit = endpoint.service, endpoint.relay, visit
        self._key = visit.headers.get(IDEMPOTENCY_KEY, b"").decode("latin-1")
        self._under_way: list[str] = []

    def leave(self) -> None:
        if self._key:  # whoever repeats this is told what became of it
            return
        for call_id in self._under_way:
            self._service.spawn(self._relay.cancel(call_id))

    async def all(self, told: dict[str, Any]) -> Response:
        if "tool_calls" not in told:
            suggestion = suggestion_of(told)
            text, failed = await self._one(suggestion, self._key)
            return _told(suggestion.answered(text), failed=failed)
        suggestions = list(_suggestions(told["tool_calls"]))
        ended = await asyncio.gather(*map(self._among, suggestions))
        answers = [s.answered(text) for s, (text, _) in zip(suggestions, ended, strict=True)]
        return _told({"messages": answers}, failed=any(failed for _, failed in ended))

    async def _one(self, suggestion: Suggestion, key: str) -> tuple[str, bool]:
        """The text for the model, and whether the tool says it failed. Raises `ToolbusError`."""
        params: dict[str, Any] = {"name": suggestion.name, "arguments": suggestion.arguments}
        if key:
            params["_meta"] = {IDEMPOTENCY: key}
        request = Request(b"null", TOOLS_CALL, params, ProtocolFamily.MODERN)
        call_id = self._service.calls.new_call_id()
        self._under_way.append(call_id)
        result = msgspec.json.decode(await self._relay.run(self._visit, request, call_id))
        return _text(result), result.get("isError") is True

    async def _among(self, suggestion: Suggestion) -> tuple[str, bool]:
        """The same among others: one that fails leaves the others what they are."""
        key = self._key and f"{self._key}/{suggestion.call_id}"
        try:
            return await self._one(suggestion, key)
        except ToolbusError as error:
            return f"{error.code}: {error.reason}", True


def suggestion_of(told: Any) -> Suggestion:
    """A suggestion as a model wrote it. Raises `InvalidError`."""
    chat = isinstance(told, dict) and isinstance(told.get("function"), dict)
    called = told["function"] if chat else told
    if not isinstance(called, dict) or not isinstance(called.get("name"), str):
        raise InvalidError(
            'Send a tool call as the model gave it: {"id": …, "function": {"name": …, '
            '"arguments": "{…}"}}, or {"type": "function_call", "call_id": …, "name": …}.'
        )
    call_id = told.get("id" if chat else "call_id")
    if not isinstance(call_id, str):
        raise InvalidError("The tool call has no id; send the one the model gave it.")
    return Suggestion(called["name"], _arguments(called.get("arguments")), call_id, chat)


def _suggestions(told: Any) -> Iterator[Suggestion]:
    if not isinstance(told, list) or not 1 <= len(told) <= MOST_AT_ONCE:
        raise InvalidError(f"tool_calls must be a list of 1 to {MOST_AT_ONCE} tool calls.")
    yield from map(suggestion_of, told)


def _arguments(told: Any) -> dict[str, Any]:
    """Arguments as models write them: an object, or its JSON as text."""
    if isinstance(told, str):
        return _object(told.encode()) if told.strip() else {}
    if told is None or isinstance(told, dict):
        return told or {}
    raise InvalidError("The arguments must be a JSON object, or one as text.")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = strict_json.parse(body)
    except strict_json.StrictJSONError as error:
        raise InvalidError(f"This must be a JSON object; it is {error}.") from error
    if not isinstance(found, dict):
        raise InvalidError("This must be a JSON object.")
    return found


def _text(result: dict[str, Any]) -> str:
    """A result as the one text a tool message can hold; what is no text stays JSON."""
    blocks = result.get("content") or []
    if blocks and all(block.get("type") == "text" for block in blocks):
        return "\n".join(str(block.get("text", "")) for block in blocks)
    if not blocks and "structuredContent" in result:
        return strict_json.dump(result["structuredContent"]).decode()
    return strict_json.dump(blocks).decode()


def _as_function(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool.get("inputSchema", {"type": "object"})}
    if tool.get("description"):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _told(body: dict[str, Any], *, failed: bool) -> Response:
    return Response(jsonrpc.OK, strict_json.dump(body), ((IS_ERROR, b"true"),) if failed else ())


def reworded(answer: Response) -> Response:
    """A failure in the words of this API; anything else as it is."""
    if not answer.body.startswith(b'{"jsonrpc"'):
        return answer
    failure = msgspec.json.decode(answer.body)["error"]
    data = failure.get("data") or {}
    code = data.get("code", "refused")
    status = answer.status if answer.status != jsonrpc.OK else _STATUS.get(code, _REFUSED)
    error = {"message": failure["message"], "type": code, "code": code, "details": data}
    return Response(status, strict_json.dump({"error": error}), answer.headers)
