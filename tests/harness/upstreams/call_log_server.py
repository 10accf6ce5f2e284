"""Small MCP server over HTTP in a separate process. It logs every call.

Usage: `python call_log_server.py PORT LOG`. Every call is written to the log before it is answered,
so a test can count the calls that reached the upstream. A call with the argument `until` is
answered once the file of that name exists.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn

STRING = {"type": "string"}
TOOLS: dict[str, dict[str, Any]] = {
    "say": {"text": STRING},
    "count": {"id": STRING},
    "wait": {"id": STRING, "seconds": {"type": "number"}},
    "drip": {"steps": {"type": "integer"}},
    "complain": {},
    "fault": {},
    "die": {},
    "push_branch": {},
}


class Upstream:
    """The ASGI application."""

    def __init__(self, call_log: Path) -> None:
        self._call_log = call_log

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Respond to one HTTP request."""
        if scope["type"] == "lifespan":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["method"] != "POST":
            await answer(send, 405, None)
            return
        request = json.loads(body)
        if "id" not in request:
            await answer(send, 202, None)
        elif request["method"] == "tools/call":
            await self.call(request, send)
        else:
            await answer(send, 200, {**envelope(request), **local(request)})

    async def call(self, request: dict[str, Any], send: Any) -> None:
        """Respond to one tool call."""
        tool, arguments = request["params"]["name"], request["params"].get("arguments", {})
        with self._call_log.open("a") as call_log:
            call_log.write(json.dumps({"tool": tool, **arguments}) + "\n")
        if tool == "die":
            os._exit(1)
        while not is_released(arguments):  # noqa: ASYNC110 - the test is another process
            await asyncio.sleep(0.01)
        if tool == "wait":
            await asyncio.sleep(arguments["seconds"])
        if tool == "drip":
            await drip(request, arguments["steps"], send)
        elif tool == "fault":
            fault = {"code": -32050, "message": "The tool is out of order"}
            await answer(send, 200, {**envelope(request), "error": fault})
        else:
            message = arguments.get("text") or arguments.get("id") or tool
            await answer(
                send, 200, {**envelope(request), "result": text(message, tool == "complain")}
            )


def is_released(arguments: dict[str, Any]) -> bool:
    return "until" not in arguments or Path(arguments["until"]).exists()


def envelope(request: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request["id"]}


def text(words: str, is_error: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    return {"content": [{"type": "text", "text": words}], "isError": is_error}


def local(request: dict[str, Any]) -> dict[str, Any]:
    """Return the response to a request that is not a tool call."""
    if request["method"] == "initialize":
        fields = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "upstream", "version": "1"},
        }
        return {"result": fields}
    if request["method"] == "tools/list":
        tools = [
            {"name": name, "inputSchema": {"type": "object", "properties": properties}}
            for name, properties in TOOLS.items()
        ]
        return {"result": {"tools": tools}}
    if request["method"] == "ping":
        return {"result": {}}
    return {"error": {"code": -32601, "message": "Method not found"}}


async def answer(send: Any, status: int, body: dict[str, Any] | None) -> None:
    data = json.dumps(body).encode() if body is not None else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def drip(request: dict[str, Any], steps: int, send: Any) -> None:
    """Send progress as server-sent events, then the result."""
    token = request["params"].get("_meta", {}).get("progressToken")
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for step in range(1, steps + 1):
        if token is None:
            continue
        params = {"progressToken": token, "progress": step, "total": steps}
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        await event(send, note)
    await event(send, {**envelope(request), "result": text(f"{steps} steps")})
    await send({"type": "http.response.body", "body": b""})


async def event(send: Any, message: dict[str, Any]) -> None:
    data = b"event: message\ndata: %b\n\n" % json.dumps(message).encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


if __name__ == "__main__":
    uvicorn.run(
        Upstream(Path(sys.argv[2])), port=int(sys.argv[1]), log_level="warning", lifespan="off"
    )
