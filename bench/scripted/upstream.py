"""Company's servers in one process: `/<server>/mcp` speaks MCP, `/reset` restores the data.

Usage: `python -m scripted.upstream PORT [TOOLS]`, where TOOLS is a published benchmark's list. GET
`/effects` returns the changes since the reset.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from scripted.catalogue import tools
from scripted.company import Company, ToolError
from scripted.published import Answering, tools_in

_decode, _encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


class Upstream:
    """The ASGI application."""

    def __init__(self, published: str = "") -> None:
        self._tools = tools_in(Path(published)) if published else tools()
        self._begin: Callable[[], Company | Answering] = (
            partial(Answering, self._tools) if published else Company
        )
        self._company = self._begin()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status, text = self._answered(scope["method"], scope["path"].strip("/"), body)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def _answered(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "reset":
            self._company = self._begin()
            return 200, b"{}"
        if path == "effects":
            return 200, _encode(self._company.effects)
        if method != "POST":
            return 405, b""
        request = _decode(body)
        if "id" not in request:
            return 202, b""
        result = self._result(
            path.partition("/")[0], request["method"], request.get("params") or {}
        )
        return 200, _encode({"jsonrpc": "2.0", "id": request["id"], **result})

    def _result(self, server: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            info = {"name": server, "version": "1"}
            fields = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            return {"result": {**fields, "serverInfo": info}}
        if method == "tools/list":
            return {"result": {"tools": self._tools[server]}}
        if method == "tools/call":
            return {"result": self._called(server, params["name"], params.get("arguments") or {})}
        if method == "ping":
            return {"result": {}}
        return {"error": {"code": -32601, "message": "Method not found"}}

    def _called(self, server: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            value = self._company.call(server, tool, arguments)
        except (ToolError, KeyError) as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
        text = {"type": "text", "text": _encode(value).decode()}
        return {"content": [text], "structuredContent": value}


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(
        Upstream(*sys.argv[2:]), port=port, log_level="warning", lifespan="off", access_log=False
    )
