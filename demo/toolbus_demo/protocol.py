"""The part of MCP that a demo server needs, in both protocol families."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")

Notify = Callable[[dict[str, Any]], Awaitable[None]]
Run = Callable[[dict[str, Any], "Progress"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress notifications of a tool call, if the caller requested them."""

    token: str | int | None
    notify: Notify

    async def tell(self, progress: float, total: float) -> None:
        """Send one notification."""
        if self.token is not None:
            params = {"progressToken": self.token, "progress": progress, "total": total}
            message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
            await self.notify(message)


@dataclass(frozen=True, slots=True)
class DemoTool:
    """A tool: its definition and its function, which raises `ValueError` to fail."""

    name: str
    description: str
    properties: dict[str, Any]
    run: Run
    required: tuple[str, ...] = ()

    def definition(self) -> dict[str, Any]:
        """Return the tool's definition for tools/list."""
        schema = {"type": "object", "properties": self.properties, "required": list(self.required)}
        return {"name": self.name, "description": self.description, "inputSchema": schema}


@dataclass(slots=True)
class DemoServer:
    """An MCP server with tools, independent of the transport."""

    name: str
    tools: list[DemoTool] = field(default_factory=list)

    async def answer(self, message: Any, notify: Notify) -> dict[str, Any] | None:
        """Return the reply to a request; None for a notification."""
        if not isinstance(message, dict) or "id" not in message:
            return None
        params = message.get("params") or {}
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            result = await self._result(str(message.get("method")), params, notify)
        except LookupError as error:
            code = -32602 if "tool" in str(error) else -32601
            return reply | {"error": {"code": code, "message": str(error.args[0])}}
        return reply | {"result": result}

    async def _result(self, method: str, params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        if method == "initialize":
            requested = params.get("protocolVersion")
            version = requested if requested in LEGACY else LEGACY[0]
            return {"protocolVersion": version, **self._described()}
        if method == "ping":
            return {}
        if method == "server/discover":
            return {"resultType": "complete", "supportedVersions": [MODERN], **self._described()}
        if method == "tools/list":
            tools = [tool.definition() for tool in self.tools]
            return {"resultType": "complete", "tools": tools}
        if method == "tools/call":
            return await self._call(params, notify)
        raise LookupError(f"Method not found: {method}")

    def _described(self) -> dict[str, Any]:
        return {"capabilities": {"tools": {}}, "serverInfo": {"name": self.name, "version": "1"}}

    async def _call(self, params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        found = next((tool for tool in self.tools if tool.name == params.get("name")), None)
        if found is None:
            raise LookupError(f"Unknown tool: {params.get('name')}")
        token = (params.get("_meta") or {}).get("progressToken")
        try:
            result = await found.run(params.get("arguments") or {}, Progress(token, notify))
        except ValueError as error:
            return _content(str(error), failed=True)
        return _content(str(result), failed=False)


def _content(text: str, *, failed: bool) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"resultType": "complete", "content": content, "isError": failed}
