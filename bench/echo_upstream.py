"""Raw ASGI echo server in both protocol families, as fast as Python allows."""

import argparse
from typing import Any

import msgspec
import uvicorn

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
}


def definitions(extra: int) -> list[dict[str, Any]]:
    """Return the tool `echo`, and others for long lists."""
    names = ["echo", *(f"tool_{number:04}" for number in range(extra))]
    return [
        {"name": name, "description": f"Returns its argument ({name}).", "inputSchema": SCHEMA}
        for name in names
    ]


class Echo:
    """The application."""

    def __init__(self, extra: int) -> None:
        self._tools = definitions(extra)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one POST."""
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        request = _decode(body) if body else {}
        answer = self._answer(request) if scope["method"] == "POST" else None
        status = 405 if scope["method"] != "POST" else 200 if answer else 202
        text = answer or b""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def _answer(self, request: dict[str, Any]) -> bytes | None:
        if "id" not in request:
            return None
        method, params = request["method"], request.get("params", {})
        if method == "tools/call":
            content = [{"type": "text", "text": params["arguments"].get("text", "")}]
            result: dict[str, Any] = {"content": content, "isError": False}
        elif method == "tools/list":
            result = {"tools": self._tools, "ttlMs": 0, "cacheScope": "private"}
        elif method == "server/discover":
            versions = ["2026-07-28"]
            result = {"supportedVersions": versions, "capabilities": {"tools": {}}}
        elif method == "initialize":
            info = {"name": "echo", "version": "1"}
            version = params.get("protocolVersion", "2025-11-25")
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        else:
            error = {"code": -32601, "message": "Method not found"}
            return _encode({"jsonrpc": "2.0", "id": request["id"], "error": error})
        if method != "initialize":
            result["resultType"] = "complete"
        return _encode({"jsonrpc": "2.0", "id": request["id"], "result": result})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tools", type=int, default=0)
    options = parser.parse_args()
    uvicorn.run(
        Echo(options.tools),
        port=options.port,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
    )
