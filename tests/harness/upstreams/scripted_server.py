"""Low-level MCP server with scripted lists and responses, including malformed ones.

Usage: `python scripted_server.py FILE` runs a session-based server on stdio. FILE is JSON with
`lists` by member, `results` by tool, prompt, URI or completed text, and `announces` by tool: the
resources whose change is reported before the response. `serving` runs the server over HTTP, by
default in the stateless family.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MEMBERS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
_CAPABILITIES: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}, "completions": {}}
_INFO = {"name": "odd", "version": "1"}
_OF_LISTS = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


def answer(message: dict[str, Any], script: dict[str, Any], *, modern: bool) -> dict[str, Any]:
    """Return the answer to a request."""
    method, params = message["method"], message.get("params") or {}
    result: Any = None
    if method == "server/discover" and modern:
        described = {"supportedVersions": ["2026-07-28"], "capabilities": _CAPABILITIES}
        result = {**_OF_LISTS, **described}
    elif method == "initialize" and not modern:
        version = params["protocolVersion"]
        described = {"protocolVersion": version, "serverInfo": _INFO}
        result = {**described, "capabilities": _CAPABILITIES}
    elif method == "ping":
        result = {}
    elif method in _MEMBERS:
        member = _MEMBERS[method]
        result = {member: script["lists"].get(member, []), **(_OF_LISTS if modern else {})}
    elif method in ("tools/call", "prompts/get", "resources/read", "completion/complete"):
        request = params.get("argument", {}).get("value")
        name = params.get("name") or params.get("uri") or request
        usual = {"content": [{"type": "text", "text": json.dumps([name, params.get("arguments")])}]}
        result = script.get("results", {}).get(name, usual)
        if modern and isinstance(result, dict):
            result = {"resultType": "complete", **result}
    if result is None:
        error = {"code": -32601, "message": "Method not found"}
        return {"jsonrpc": "2.0", "id": message["id"], "error": error}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def announced(message: dict[str, Any], script: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the notifications without a subscription that precede the response."""
    name = (message.get("params") or {}).get("name")
    uris = script.get("announces", {}).get(name, []) if message["method"] == "tools/call" else []
    updated = {"jsonrpc": "2.0", "method": "notifications/resources/updated"}
    return [{**updated, "params": {"uri": uri}} for uri in uris]


@contextmanager
def serving(script: dict[str, Any], *, modern: bool = True) -> Iterator[str]:
    """Serve one family over HTTP without sessions until the context ends. Return the URL."""
    from harness.network.json_server import Request, Response, answering  # noqa: PLC0415

    def respond(request: Request) -> Response:
        if request.method != "POST":
            return Response(405)
        message = request.json
        if "id" not in message:
            return Response(202)
        published = answer(message, script, modern=modern)
        before = announced(message, script)
        if before:
            stream = "".join(f"data: {json.dumps(each)}\n\n" for each in [*before, published])
            return Response(200, stream.encode(), {"content-type": "text/event-stream"})
        return Response(
            404 if "error" in published else 200, published, {"content-type": "application/json"}
        )

    with answering(respond) as port:
        yield f"http://127.0.0.1:{port}/mcp"


def main() -> None:
    """Respond to the lines of standard input."""
    body = json.loads(Path(sys.argv[1]).read_text())
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            for each in [*announced(message, body), answer(message, body, modern=False)]:
                print(json.dumps(each), flush=True)


if __name__ == "__main__":
    main()
