"""A2A agent of the official SDK, for one protocol version.

Usage: `python -m harness.a2a.agent PORT VERSION STREAMING`. The first word of a message decides
what the agent does. `GET /received` returns the requests.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from a2a.helpers.proto_helpers import (
    get_message_text,
    new_data_part,
    new_raw_part,
    new_task_from_user_message,
    new_text_message,
    new_text_part,
    new_url_part,
)
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harness.apis.rest_process import TESTS
from harness.engines.http_engine import HttpEngine

SKILLS = [
    {"id": "write-report", "name": "Reports", "description": "Writes a report.", "tags": ["text"],
     "examples": ["report Q3"]},
    {"id": "translate", "name": "Translation", "description": "Translates.", "tags": ["language"]},
]  # fmt: skip
PNG = b"\x89PNG not really"


class Agent(HttpEngine):
    """The process of an agent that speaks one protocol version."""

    def __init__(self, directory: Path, version: str, *, streaming: bool = True) -> None:
        super().__init__(directory)
        self.version = version
        self.streaming = streaming

    def command(self) -> list[str]:
        """Return the command line."""
        python = ["/usr/bin/env", f"PYTHONPATH={TESTS}", sys.executable]
        words = [str(self.port), self.version, str(self.streaming)]
        return [*python, "-m", "harness.a2a.agent", *words]

    def received(self, *methods: str) -> list[dict[str, Any]]:
        """Return the requests of these methods: their params, and some headers."""
        found: list[dict[str, Any]] = self.exchange("GET", "/received")
        return [each for each in found if each["method"] in methods]


class Worker(AgentExecutor):  # type: ignore[misc]
    """What the agent does for each first word of a message."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Answer a message with events."""
        text = get_message_text(context.message)
        word = text.partition(" ")[0]
        if word == "say":
            await event_queue.enqueue_event(new_text_message(f"You wrote: {text}"))
            return
        if context.current_task is None:
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
        else:
            word = "answered"
        updates = TaskUpdater(event_queue, context.task_id, context.context_id)
        await getattr(self, f"on_{word}", self.on_report)(updates, context, text)

    async def on_report(self, updates: TaskUpdater, _context: RequestContext, text: str) -> None:
        """Report the progress, and return a text in two chunks."""
        await updates.start_work(updates.new_agent_message([new_text_part("reading the figures")]))
        await updates.add_artifact([new_text_part(f"Report on {text}")], "r", "report")
        await updates.add_artifact([new_text_part("the end")], "r", append=True, last_chunk=True)
        await updates.complete()

    async def on_parts(self, updates: TaskUpdater, context: RequestContext, _text: str) -> None:
        """Return parts of every kind, and the kinds of the received ones."""
        kinds = [each.WhichOneof("content") for each in context.message.parts]
        parts = [
            new_data_part({"kinds": kinds, "skill": dict(context.message.metadata)}),
            new_raw_part(PNG, "image/png", "a.png"),
            new_raw_part(b"%PDF", "application/pdf", "a b.pdf"),
            new_url_part("https://files.example/c.csv", "text/csv", "c.csv"),
        ]
        await updates.add_artifact(parts, "p")
        await updates.complete()

    async def on_ask(self, updates: TaskUpdater, _context: RequestContext, _text: str) -> None:
        """Require input."""
        question = updates.new_agent_message([new_text_part("Which quarter?")])
        await updates.requires_input(question)

    async def on_answered(self, updates: TaskUpdater, _context: RequestContext, text: str) -> None:
        """Complete a task that required input."""
        await updates.complete(updates.new_agent_message([new_text_part(f"Thanks for {text}")]))

    async def on_wait(self, updates: TaskUpdater, _context: RequestContext, text: str) -> None:
        """Work until the task is cancelled, or for the stated seconds."""
        await updates.start_work(updates.new_agent_message([new_text_part("waiting")]))
        await asyncio.sleep(float(text.partition(" ")[2] or 3600))
        await updates.complete(updates.new_agent_message([new_text_part("waited")]))

    async def on_fail(self, updates: TaskUpdater, _context: RequestContext, _text: str) -> None:
        """Fail."""
        await updates.failed(updates.new_agent_message([new_text_part("no figures")]))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Cancel a task."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


class Recording:
    """ASGI middleware that stores the requests, and accepts the methods of one version only."""

    def __init__(self, app: Any, version: str, received: list[dict[str, Any]]) -> None:
        self._app = app
        self._version = version
        self._received = received

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on a request after its body was stored."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        kept = {name: headers.get(name, "") for name in ("a2a-version", "authorization")}
        self._received.append({**request, "headers": kept})
        if ("/" in request["method"]) != (self._version == "0.3"):
            error = {"code": -32601, "message": "another version"}
            answer = JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": error})
            await answer(scope, receive, send)
            return
        first = True

        async def again() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, again, send)


def card_of(origin: str, version: str, *, streaming: bool) -> dict[str, Any]:
    """Return the card in the form of a version."""
    url = f"{origin}/rpc"
    about: dict[str, Any] = {
        "name": "Analyst", "description": "Analyses figures.", "version": "7",
        "capabilities": {"streaming": streaming}, "skills": SKILLS,
        "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
    }  # fmt: skip
    if version == "0.3":
        transport = {"url": url, "preferredTransport": "JSONRPC", "protocolVersion": "0.3.0"}
        return about | transport
    interface = {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": version}
    other = {"url": f"{origin}/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": version}
    return about | {"supportedInterfaces": [other, interface]}


def application(port: int, version: str, *, streaming: bool) -> Starlette:
    """Return the agent's application. The older version has the older path of its card."""
    capabilities = AgentCapabilities(streaming=streaming)
    handler = DefaultRequestHandler(
        Worker(), InMemoryTaskStore(), AgentCard(name="Analyst", capabilities=capabilities)
    )
    received: list[dict[str, Any]] = []
    card = card_of(f"http://127.0.0.1:{port}", version, streaming=streaming)

    async def show_card(_request: Request) -> Response:
        return JSONResponse(card)

    async def show_received(_request: Request) -> Response:
        return JSONResponse(received)

    name = "agent.json" if version == "0.3" else "agent-card.json"
    routes = [
        *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
        Route(f"/.well-known/{name}", show_card),
        Route("/received", show_received),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(Recording, version=version, received=received)
    return app


if __name__ == "__main__":
    number, spoken, streams = sys.argv[1:]
    uvicorn.run(
        application(int(number), spoken, streaming=streams == "True"),
        port=int(number),
        log_level="warning",
    )
