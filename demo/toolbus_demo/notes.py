"""A demo MCP server over streamable HTTP for notes: `python -m toolbus_demo.notes --port N`."""

import argparse
import json
from typing import Any

import uvicorn

from toolbus_demo.protocol import DemoServer, DemoTool, Progress

LARGEST_BODY = 1 << 20
MAX_NOTES = 1_000

notes: list[str] = []


async def add(arguments: dict[str, Any], _progress: Progress) -> str:
    """Add a note."""
    text = arguments.get("text")
    if not isinstance(text, str) or not text:
        raise ValueError("The argument 'text' is missing or empty; send the note's text.")
    if len(notes) >= MAX_NOTES:
        raise ValueError(f"The limit of {MAX_NOTES} notes is reached; clear them first.")
    notes.append(text)
    return f"note {len(notes)} is stored"


async def list_notes(_arguments: dict[str, Any], _progress: Progress) -> str:
    """Return all notes, one per line."""
    return "\n".join(notes) or "no notes yet"


async def clear(_arguments: dict[str, Any], _progress: Progress) -> str:
    """Delete all notes."""
    notes.clear()
    return "all notes are gone"


SERVER = DemoServer(
    "notes",
    [
        DemoTool("add", "Add a note.", {"text": {"type": "string"}}, add, ("text",)),
        DemoTool("list", "Show all notes.", {}, list_notes),
        DemoTool("clear", "Delete all notes.", {}, clear),
    ],
)


async def _silent(_message: dict[str, Any]) -> None:
    """Drop a notification: a response that is one JSON document carries none."""


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve one HTTP request (ASGI): a POST with one JSON response."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more and len(body) <= LARGEST_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["method"] != "POST":
        await _send(send, 405, b"")
        return
    try:
        answer = await SERVER.answer(json.loads(body), _silent)
    except json.JSONDecodeError:
        await _send(send, 400, b"")
        return
    await _send(send, 202 if answer is None else 200, b"" if answer is None else _json(answer))


def _json(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


async def _send(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9010)
    uvicorn.run(
        app, port=parser.parse_args().port, access_log=False, log_level="warning", ws="none"
    )
