"""SDK server that stores texts per session.

Usage: `python stateful_server.py stdio` stores the texts in the process. `http PORT` and `sse PORT`
store them per session, as a session-based server without `server/discover`. `stateless PORT` issues
no session ids. `dual PORT` supports both families.
"""

import asyncio
import json
import os
import sys
from typing import Any
from weakref import WeakKeyDictionary

from mcp.server.mcpserver import Context, MCPServer

app = MCPServer("stateful", log_level="WARNING")
of_process: list[str] = []
of_sessions: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()


def texts(ctx: Context) -> list[str]:
    """Return the list of the process on stdio, otherwise the list of the session."""
    if sys.argv[1] == "stdio":
        return of_process
    found: list[str] = of_sessions.setdefault(ctx.session._connection, [])
    return found


@app.tool()
async def remember(text: str, ctx: Context) -> str:
    """Store a text."""
    texts(ctx).append(text)
    return text


@app.tool()
async def recall(ctx: Context) -> str:
    """Return all texts of this session."""
    return ",".join(texts(ctx))


@app.tool()
async def pid() -> str:
    """Return the process id."""
    return str(os.getpid())


@app.tool()
async def wait() -> str:
    """Wait for an hour."""
    await asyncio.sleep(3600)
    return "waited"


@app.tool()
async def work(steps: int, pause: float, ctx: Context, then: float = 0.0) -> str:
    """Report progress `steps` times with a pause before each, then wait without progress."""
    for step in range(1, steps + 1):
        await asyncio.sleep(pause)
        await ctx.report_progress(step, steps)
    await asyncio.sleep(then)
    return f"{steps} steps"


@app.tool()
async def die() -> str:
    """Exit the process immediately."""
    os._exit(3)


class HandshakeFamilyApp:
    """The application of an SDK without `server/discover`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond to one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._inner(scope, receive, send)
            return
        whole = b""
        while True:
            message = await receive()
            whole += message.get("body", b"")
            if not message.get("more_body"):
                break
        from starlette.responses import JSONResponse  # noqa: PLC0415 - stdio starts fast

        request = json.loads(whole)
        if request.get("method") == "server/discover":
            error = {"code": -32601, "message": "Method not found"}
            answer = {"jsonrpc": "2.0", "id": request["id"], "error": error}
            result = JSONResponse(answer, 400)
            await result(scope, receive, send)
            return
        sent = False

        async def again() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": whole, "more_body": False}

        await self._inner(scope, again, send)


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind == "stdio":
        app.run("stdio")
    else:
        import uvicorn

        inner = (
            app.sse_app()
            if kind == "sse"
            else app.streamable_http_app(stateless_http=kind == "stateless")
        )
        uvicorn.run(
            inner if kind == "dual" else HandshakeFamilyApp(inner),
            port=int(sys.argv[2]),
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
