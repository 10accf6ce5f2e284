"""SDK server of the session-based family that sends requests to its client.

Usage: `python elicitation_server.py stdio`, `sse PORT` or `http PORT`. It sends requests during
calls (`ask`, `sample`) and after calls (`later`). It requests the roots when a session starts and
when the roots change. The listed tools depend on the client's capabilities.
"""

import asyncio
import sys
from collections import defaultdict
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.lowlevel import server as low_level
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

FORM: Any = {"type": "object", "properties": {"word": {"type": "string"}}}
TEXT: Any = {"type": "object", "properties": {"word": {"type": "string"}}}
PLAIN = ("ask", "sample", "plain", "later", "heard")
messages: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()
counts: dict[str, int] = defaultdict(int)  # cancelled calls, by tool
jobs: set[asyncio.Task[None]] = set()


def kept(ctx: Any) -> list[str]:
    """Return the log of messages outside calls."""
    found: list[str] = messages.setdefault(ctx.session._connection, [])
    return found


async def elicited(ctx: Any, word: str, request: Any) -> str:
    """Elicit an answer, and return it as text."""
    try:
        answer = await ctx.session.elicit_form(word, FORM, request)
    except MCPError as error:
        return f"error {error.error.code} {error.error.message}"
    return f"{answer.action} {(answer.content or {}).get('word')}"


async def sampled(ctx: Any, word: str) -> str:
    """Sample from the model of the client, and return the text."""
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=word))
    try:
        answer = await ctx.session.create_message(
            [message], max_tokens=10, related_request_id=ctx.request_id
        )
    except MCPError as error:
        return f"error {error.error.code} {error.error.message}"
    return str(answer.content.text)


async def rooted(ctx: Any) -> None:
    """Record the client's roots."""
    try:
        roots = (await ctx.session.list_roots()).roots
        kept(ctx).append("roots " + ",".join(str(each.uri) for each in roots))
    except MCPError as error:
        kept(ctx).append(f"error {error.error.code} {error.error.message}")


def begin(work: Any) -> None:
    """Run a coroutine after its handler has returned."""
    job = asyncio.create_task(work)
    jobs.add(job)
    job.add_done_callback(jobs.discard)


async def asking(ctx: Any, word: str) -> str:
    """Send a request during a call, and record a cancellation."""
    try:
        return await elicited(ctx, word, ctx.request_id)
    except asyncio.CancelledError:
        counts[word] += 1
        raise


async def later(ctx: Any, word: str) -> str:
    """Send a request after the call has ended."""

    async def ask() -> None:
        kept(ctx).append(f"later {await elicited(ctx, word, None)}")

    begin(ask())
    return word


async def received(ctx: Any, _word: str) -> str:
    """Return the messages received outside calls."""
    return ";".join(kept(ctx))


async def plain(_ctx: Any, word: str) -> str:
    """Return the word."""
    return word


TOOLS = {"ask": asking, "sample": sampled, "later": later, "heard": received}


async def called(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Call one tool."""
    word = str((params.arguments or {}).get("word", ""))
    text = await TOOLS.get(params.name, plain)(ctx, word)
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


async def listed(ctx: Any, _params: Any) -> types.ListToolsResult:
    """Return the tools that fit the client's capabilities."""
    sampling = types.ClientCapabilities(sampling=types.SamplingCapability())
    able = ctx.session.check_client_capability(sampling)
    names = (*PLAIN, "think" if able else "fallback")
    return types.ListToolsResult(tools=[types.Tool(name=name, input_schema=TEXT) for name in names])


async def wanted(ctx: Any, _params: Any) -> None:
    """Request the roots of a client that supports roots."""
    if ctx.session.check_client_capability(types.ClientCapabilities(roots=types.RootsCapability())):
        begin(rooted(ctx))


def made() -> Server[Any]:
    """Return the server."""
    server: Server[Any] = Server(
        "asking", on_list_tools=listed, on_call_tool=called, on_roots_list_changed=wanted
    )
    server.add_notification_handler("notifications/initialized", types.NotificationParams, wanted)
    return server


async def on_stdio() -> None:
    """Serve one client on stdio."""
    server = made()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def on_sse() -> Any:
    """Return the application of HTTP+SSE."""
    from mcp.server.sse import SseServerTransport  # noqa: PLC0415 - a process on stdio starts fast
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Mount, Route  # noqa: PLC0415

    server, transport = made(), SseServerTransport("/messages/")

    async def stream(request: Any) -> Any:
        async with transport.connect_sse(
            request.scope,
            request.receive,
            request._send,
        ) as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return Response()

    routes = [
        Route("/sse", stream, methods=["GET"]),
        Mount("/messages/", app=transport.handle_post_message),
    ]
    return Starlette(routes=routes)


def over_http() -> Any:
    """Return the application of streamable HTTP."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.routing import Mount  # noqa: PLC0415

    # This module is in the directory of this program.
    of_handshake_family = import_module("stateful_server").HandshakeFamilyApp
    manager = StreamableHTTPSessionManager(made())

    def lifespan(_app: Any) -> Any:
        return manager.run()

    return Starlette(
        routes=[Mount("/mcp", app=of_handshake_family(manager.handle_request))], lifespan=lifespan
    )


if __name__ == "__main__":
    # In the same way as SDKs that support only the revisions with a handshake.
    setattr(low_level, "serve_dual_era_loop", serve_loop)  # noqa: B010 - it is not exported
    if sys.argv[1] == "stdio":
        anyio.run(on_stdio)
    else:
        import uvicorn

        uvicorn.run(
            on_sse() if sys.argv[1] == "sse" else over_http(),
            port=int(sys.argv[2]),
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
