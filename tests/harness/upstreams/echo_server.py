"""MCP server that returns what it receives: as a result, an error or messages. Over stdio."""

import json
import sys
from typing import Any

TOOLS = [
    {"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}
    for name in ("say", "structured", "fail", "refuse", "tell", "received", "ask", "large")
]
_LOCAL: dict[str, dict[str, Any]] = {
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
    "tools/list": {"tools": TOOLS, "ttlMs": 0, "cacheScope": "private"},
}
received: list[Any] = []


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the members of the response to a request."""
    local = _LOCAL.get(request["method"])
    if local is not None:
        return {"result": local}
    if request["method"] != "tools/call":
        return {"error": {"code": -32601, "message": "Method not found"}}
    params = request["params"]
    tool, arguments = params["name"], params.get("arguments", {})
    if tool == "received":
        return _result(json.dumps(received))
    received.append(arguments)
    return _answer_of(tool, arguments, params)


def _answer_of(tool: str, arguments: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    text = str(arguments.get("text", ""))
    if tool == "refuse":
        return {"error": {"code": -32000, "message": text, "data": {"seen": text}}}
    if tool == "ask":
        question = {"method": "elicitation/create", "params": {"mode": "form", "message": text,
                    "requestedSchema": {"type": "object", "properties": {}}}}  # fmt: skip
        members = {"resultType": "input_required", "inputRequests": {"q": question}}
        return {"result": {**members, "requestState": text}}
    if tool == "structured":
        return {"result": {"content": [], "structuredContent": arguments.get("value", {})}}
    if tool == "large":
        before, after = int(arguments["before"]), int(arguments["after"])
        return _result("word " * (before // 5) + text + " word" * (after // 5))
    if tool == "tell":
        token = params["_meta"]["progressToken"]
        _send("notifications/progress", {"progressToken": token, "progress": 1, "message": text})
        _send("notifications/message", {"level": "error", "data": text})
    return _result(text, is_error=tool == "fail")


def _result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"result": {"resultType": "complete", "content": content, "isError": is_error}}


def _send(method: str, params: dict[str, Any]) -> None:
    print(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}), flush=True)


def main() -> None:
    """Answer requests until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request and "method" in request:
            members = answer(request)
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **members}), flush=True)


if __name__ == "__main__":
    main()
