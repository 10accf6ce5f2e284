"""MCP server on stdio that starts a stray process: `stdio_server.py MARK`."""

import json
import os
import signal
import sys
from typing import Any

TOOL = {"name": "plain", "inputSchema": {"type": "object"}}


def leave_a_stray() -> None:
    """Start a process outside the group and session that ignores signals and holds every pipe."""
    started, beginning = os.pipe()  # closed by the stray's own program
    if middle := os.fork():
        os.close(beginning)
        os.waitpid(middle, 0)
        os.read(started, 1)
        return
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.execvp("sleep", [sys.argv[1], "3600"])
    os._exit(0)


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request."""
    answers: dict[str, dict[str, Any]] = {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "serverInfo": {"name": "bench", "version": "1"},
            "capabilities": {"tools": {}},
        },
        "tools/list": {"tools": [TOOL]},
        "tools/call": {"content": [{"type": "text", "text": "here"}]},
    }
    if request["method"] in answers:
        return {"result": answers[request["method"]]}
    return {"error": {"code": -32601, "message": "Method not found"}}


def main() -> None:
    """Answer until the input ends."""
    leave_a_stray()
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            answer = {"jsonrpc": "2.0", "id": request["id"], **reply(request)}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
