"""MCP server on stdio without the SDK, whose import takes a second of processor time.

It speaks both families. Usage: `python stdio_server.py` remembers texts in the process;
`stdio_server.py env NAME` or `file PATH` receives a token, which `whoami` introspects at ISSUER.
"""

import asyncio
import inspect
import json
import os
import sys
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

MODERN = "2026-07-28"
METHOD_NOT_FOUND = -32601
CAPABILITIES: dict[str, Any] = {"tools": {}}
COMPLETE = {"resultType": "complete"}
SCHEMA_TYPES = {str: "string", int: "integer"}
OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"result": {"type": "string"}},
    "required": ["result"],
}

Tool = Callable[..., str | Awaitable[str]]


class StdioServer:
    """Functions as tools with their names; each request is answered in a task of its own."""

    def __init__(self, name: str, *tools: Tool) -> None:
        self._info = {"name": name, "version": "1"}
        self._tools = {tool.__name__: tool for tool in tools}
        self._running: dict[Any, asyncio.Task[None]] = {}

    def run(self) -> None:
        """Serve until standard input ends."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 24)
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await reader.readline():
            message = json.loads(line)
            if message.get("method") == "notifications/cancelled":
                if call := self._running.get(message["params"].get("requestId")):
                    call.cancel()
            elif "method" in message and "id" in message:
                self._running[message["id"]] = asyncio.ensure_future(self._respond(message))

    async def _respond(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            result = await self._result(message["method"], message.get("params") or {})
            if result is None:
                text = f"There is no method {message['method']}."
                answer["error"] = {"code": METHOD_NOT_FOUND, "message": text}
            else:
                answer["result"] = result
            print(json.dumps(answer), flush=True)
        finally:
            del self._running[message["id"]]

    async def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        described = {"serverInfo": self._info, "capabilities": CAPABILITIES}
        if method == "server/discover":
            return {**COMPLETE, **described, "supportedVersions": [MODERN]}
        if method == "initialize":
            return {**described, "protocolVersion": params["protocolVersion"]}
        if method == "ping":
            return {}
        if method == "tools/list":
            return {**COMPLETE, "tools": [*map(_described, self._tools.values())]}
        if method == "tools/call" and (tool := self._tools.get(params["name"])):
            text = tool(**params.get("arguments") or {})
            if not isinstance(text, str):
                text = await text
            content = [{"type": "text", "text": text}]
            return {**COMPLETE, "content": content, "structuredContent": {"result": text}}
        return None


def _described(tool: Tool) -> dict[str, Any]:
    fields = inspect.signature(tool).parameters
    properties = {name: {"type": SCHEMA_TYPES[each.annotation]} for name, each in fields.items()}
    schema = {"type": "object", "properties": properties, "required": [*fields]}
    described = {"name": tool.__name__, "description": tool.__doc__}
    return {**described, "inputSchema": schema, "outputSchema": OUTPUT_SCHEMA}


texts: list[str] = []


def remember(text: str) -> str:
    """Remember a text."""
    texts.append(text)
    return text


def recall() -> str:
    """Return everything remembered in this process."""
    return ",".join(texts)


def pid() -> str:
    """Return the process id."""
    return str(os.getpid())


async def wait() -> str:
    """Wait for an hour."""
    await asyncio.sleep(3600)
    return "waited"


def die() -> str:
    """End the process at once."""
    os._exit(3)


def token() -> str:
    """Return the current token."""
    how, where = sys.argv[1:3]
    return os.environ[where] if how == "env" else Path(where).expanduser().read_text()


def whoami() -> str:
    """Return the subject of the token."""
    body = urllib.parse.urlencode({"token": token()}).encode()
    with urllib.request.urlopen(f"{os.environ['ISSUER']}/introspect", body) as result:
        found = json.loads(result.read())
    return str(found.get("subject") or "nobody")


def begins() -> str:
    """Return the start of the token's digest, which distinguishes two tokens."""
    return token()[-6:]


def words() -> str:
    """Return whether the token appears on the command line, and the mode of the file."""
    mode = ""
    if sys.argv[1] == "file":
        path = Path(sys.argv[2]).expanduser()
        mode = oct(path.stat().st_mode & 0o777)
        try:
            path.write_text("forged")
        except OSError:
            mode += " read-only"
    return f"{any(token() in word for word in sys.argv)} {mode}"


if __name__ == "__main__":
    tools = (whoami, begins, pid, words) if sys.argv[1:] else (remember, recall, pid, wait, die)
    StdioServer("program", *tools).run()
