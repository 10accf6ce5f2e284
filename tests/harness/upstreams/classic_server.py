"""SDK server whose tools elicit, sample and log during the call.

Usage: `python classic_server.py stdio [FAMILY]` or `http PORT [FAMILY]`. It supports both protocol
families, or only the stateless family with `modern`. It does not declare `logging`. In the
stateless family the SDK cannot send requests to the client, so these tools fail there.
"""

import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import Icon, SamplingMessage, TextContent
from pydantic import BaseModel
from starlette.responses import JSONResponse

app = MCPServer(
    "classic",
    title="The classic server",
    version="7.1",
    instructions="Ask away.",
    website_url="https://example.org/classic",
    icons=[Icon(src="https://example.org/classic.png")],
)


class Name(BaseModel):
    """The schema of the elicitation."""

    name: str


@app.tool()
async def greet(ctx: Context) -> str:
    """Elicit a name."""
    result = await ctx.elicit("Who?", Name)
    return f"Hello {result.data.name}" if result.action == "accept" else result.action


@app.tool()
async def think(ctx: Context) -> str:
    """Sample from the model of the client."""
    request = SamplingMessage(role="user", content=TextContent(type="text", text="Think"))
    result = await ctx.session.create_message(
        [request], max_tokens=5, related_request_id=ctx.request_id
    )
    return f"Thought {getattr(result.content, 'text', '')}"


@app.tool()
async def note(text: str, ctx: Context) -> str:
    """Log at three levels."""
    for level in ("debug", "info", "error"):
        await ctx.log(level, f"{level} {text}")
    return text


@app.tool()
async def family(ctx: Context) -> str:
    """Return the protocol revision of this call."""
    return str(ctx.session.protocol_version)


class SingleFamilyApp:
    """The application of a server without the handshake."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond to one request."""
        headers = dict(scope.get("headers") or ())
        if scope["type"] == "http" and headers.get(b"mcp-protocol-version") != b"2026-07-28":
            error = {"code": -32022, "message": "Unsupported", "data": {"supported": []}}
            result = JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 400)
            await result(scope, receive, send)
            return
        await self._inner(scope, receive, send)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        app.run(transport="stdio")
    else:
        inner = app.streamable_http_app()
        one = sys.argv[-1] == "modern"
        uvicorn.run(
            SingleFamilyApp(inner) if one else inner,
            port=int(sys.argv[2]),
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
