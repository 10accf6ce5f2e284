"""HTTP listener with a small application, and the metrics of the listener."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import REGISTRY

from harness.network.raw_connections import HOST, RawAnswer, RawHttp
from toolbus_common.http_server.acceptor import Handshake
from toolbus_common.http_server.body import CutShortError, read_body
from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.listener import PLAIN, Listener
from toolbus_common.service.asgi_server import serving

BRIEF = 0.3
LONG = 600.0  # longer than any test
PATIENT = Limits(head_seconds=LONG, body_seconds=LONG, idle_seconds=LONG, write_seconds=LONG)
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
MIB = 1024 * 1024
PART = b"x" * 65536


@dataclass
class Application:
    """An application that echoes the body. Requests to `/held` wait for `go`."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    cut: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond to one request."""
        self.seen.append(scope)
        if scope["path"] == "/refused":
            await answered(send, 401, b"")
            return
        try:
            body = await read_body(receive, MIB)
        except CutShortError:
            self.cut += 1
            return
        self.bodies.append(body)
        if scope["path"] == "/held":
            await self.go.wait()
        if scope["path"] == "/endless":
            await self.endless(send)
            return
        if scope["path"] == "/events":
            await self.events(send)
            return
        await answered(send, 200, body)

    async def events(self, send: Any) -> None:
        """Send two events: the first at once, the second after `go`."""
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await self.go.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    async def endless(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not self.go.is_set():
            await send({"type": "http.response.body", "body": PART, "more_body": True})
            await asyncio.sleep(0)


async def answered(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class ServedApplication:
    """A listener with its application."""

    listener: Listener
    app: Application

    @property
    def open(self) -> int:
        return len(self.listener.connections)

    def connect(self) -> RawHttp:
        return RawHttp(self.listener.port)

    async def answer_to(self, *parts: bytes) -> RawAnswer:
        """Send bytes on a new connection, and return the response."""

        def exchange() -> RawAnswer:
            with self.connect() as connection:
                for part in parts:
                    connection.send(part)
                return connection.answer()

        return await asyncio.to_thread(exchange)


@asynccontextmanager
async def place(
    limits: Limits = PATIENT, handshake: Handshake = PLAIN
) -> AsyncIterator[ServedApplication]:
    app = Application()
    async with serving(app, "agents", "127.0.0.1", 0, limits, 5.0, handshake) as listener:
        try:
            yield ServedApplication(listener, app)
        finally:
            app.go.set()
            for connection in tuple(listener.connections):
                connection.transport.abort()


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"listener": "agents", **labels}) or 0.0


def refused(reason: str) -> float:
    return counted("toolbus_http_connections_rejected_total", reason=reason)


def closed(reason: str) -> float:
    return counted("toolbus_http_connections_closed_total", reason=reason)


def within(**seconds: float) -> Limits:
    """Return limits with these values. All other limits are long."""
    fields = {
        "head_seconds": LONG,
        "body_seconds": LONG,
        "idle_seconds": LONG,
        "write_seconds": LONG,
    }
    return Limits(**{**fields, **seconds})  # type: ignore[arg-type]
