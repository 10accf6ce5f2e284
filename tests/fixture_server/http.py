"""Streamable HTTP of both families, HTTP+SSE of 2024-11-05, and `/seen`."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from .asgi import Receive, Request, Scope, Send, numbered_events, plain_events, read
from .methods import Fixture
from .request_checks import check_headers, check_meta, check_version, family_of
from .sessions import Session, modern_call, run
from .stream import Shared, Stream
from .wire import (
    HEADER_MISMATCH,
    INVALID_REQUEST,
    LEGACY,
    PARSE_ERROR,
    Json,
    ProtocolFamily,
    RefusedError,
)

OVERTAKEN_SECONDS = 0.1  # messages that a client sends at the same time overtake a cancellation
_LOCAL = re.compile(r"(https?://)?(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_NO_SESSION = -32000
_NOT_FOUND_SESSION = -32001


@dataclass
class App:
    """The ASGI application."""

    fixture: Fixture
    families: frozenset[ProtocolFamily]
    sse: bool = False
    sessions: dict[str, Session] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = read(scope, receive, send)
        try:
            await self._route(request)
        except RefusedError as refusal:
            await request.refuse(refusal)

    async def _route(self, request: Request) -> None:
        if request.path == "/seen":
            if request.method == "DELETE":
                self.fixture.seen.forget()
            await request.answer(200, self.fixture.seen.counts)
            return
        self._check_names(request)
        if self.sse and request.path in ("/sse", "/messages"):
            await (self._old_stream if request.path == "/sse" else self._old_message)(request)
        elif self.sse or request.path != "/mcp":
            await request.answer(404)
        elif request.method == "POST":
            await self._post(request)
        elif ProtocolFamily.LEGACY not in self.families or request.method not in ("GET", "DELETE"):
            await request.answer(405, allow="POST")
        else:
            await (self._get if request.method == "GET" else self._delete)(request)

    def _check_names(self, request: Request) -> None:
        names = [request.headers.get("host", ""), request.headers.get("origin", "localhost")]
        if not self.fixture.lax and not all(_LOCAL.fullmatch(name) for name in names):
            raise RefusedError(INVALID_REQUEST, "This is a local server.", status=403)

    async def _post(self, request: Request) -> None:
        message = _parsed(await request.body())
        family = family_of(message, request.headers)
        if family not in self.families:
            (family,) = self.families
        if family is ProtocolFamily.MODERN:
            await self._modern(request, message)
        else:
            await self._legacy(request, message)

    async def _modern(self, request: Request, message: Json) -> None:
        if "method" not in message:
            raise RefusedError(INVALID_REQUEST, "This family takes no answers.", status=400)
        if "id" not in message:
            await request.answer(202)
            return
        try:
            if not self.fixture.lax:
                _check(request, message)
        except RefusedError as refusal:
            await request.refuse(refusal, message["id"])
            return
        stream = Stream("")
        call = modern_call(self.fixture, message, stream, request.headers)
        working = asyncio.create_task(run(self.fixture, call, message["id"], stream))
        await request.until_gone(_deliver(request, stream))
        if not working.done():
            working.cancel()

    async def _legacy(self, request: Request, message: Json) -> None:
        if message.get("method") == "initialize":
            session = Session(self.fixture)
            self.sessions[session.id] = session
        else:
            session = self._session(request)
        if "method" not in message or "id" not in message:
            if message.get("method") == "notifications/cancelled":
                await asyncio.sleep(OVERTAKEN_SECONDS)
            session.handle(message)
            await request.answer(202)
            return
        stream = session.stream()
        try:
            session.begin(message, stream, request.headers)
        except RefusedError as refusal:
            await request.refuse(refusal, message["id"])
            return
        fields = {"mcp_session_id": session.id} if message["method"] == "initialize" else {}
        await request.until_gone(_deliver(request, stream, session, **fields))

    def _session(self, request: Request) -> Session:
        session_id = request.headers.get("mcp-session-id", "")
        session = self.sessions.get(session_id)
        if session is not None and (self.fixture.lax or self._version_fits(request)):
            return session
        if self.fixture.lax:
            return self.sessions.setdefault("", Session(self.fixture, "lax"))
        if not self._version_fits(request):
            raise RefusedError(_NO_SESSION, "Bad Request: unsupported protocol version", status=400)
        if not session_id:
            raise RefusedError(_NO_SESSION, "Bad Request: no session id", status=400)
        raise RefusedError(_NOT_FOUND_SESSION, "Session not found", status=404)

    def _version_fits(self, request: Request) -> bool:
        return request.headers.get("mcp-protocol-version", LEGACY[0]) in LEGACY

    async def _get(self, request: Request) -> None:
        session = self._session(request)
        name, _, number = request.headers.get("last-event-id", "").partition(":")
        if name:
            stream = session.streams.get(name)
            if stream is None or not number.isdigit():
                raise RefusedError(INVALID_REQUEST, "There is no such event.", status=400)
            events = numbered_events(stream, int(number), prime=False, resumed=True)
        else:
            stream = session.standing
            events = numbered_events(stream, len(stream.messages), prime=False, resumed=True)
        await request.until_gone(request.stream(events))

    async def _delete(self, request: Request) -> None:
        session = self._session(request)
        self.sessions.pop(session.id, None)
        session.close()
        await request.answer(204)

    async def _old_stream(self, request: Request) -> None:
        if request.method != "GET":
            await request.answer(405, allow="GET")
            return
        session = Session(self.fixture, standing=Shared("sse"))
        self.sessions[session.id] = session
        try:
            await request.until_gone(request.stream(_old_events(session)))
        finally:
            session.close()
            self.sessions.pop(session.id, None)

    async def _old_message(self, request: Request) -> None:
        session = self.sessions.get(request.query.get("session", [""])[0])
        message = _parsed(await request.body())
        if session is None:
            raise RefusedError(_NOT_FOUND_SESSION, "Session not found", status=404)
        if "method" in message and "id" in message:
            session.begin(message, session.standing, request.headers)
        else:
            session.handle(message)
        await request.answer(202)


async def _old_events(session: Session) -> AsyncIterator[bytes]:
    yield f"event: endpoint\ndata: /messages?session={session.id}\n\n".encode()
    async for part in plain_events(session.standing):
        yield part


async def _deliver(
    request: Request, stream: Stream, session: Session | None = None, **headers: str
) -> None:
    """Answer with JSON if the stream has only one message, otherwise with events."""
    await stream.started()
    await asyncio.sleep(0)
    if stream.finished and not stream.messages:
        await request.answer(202, **headers)
    elif stream.single:
        await request.answer(stream.status, stream.messages[0], **headers)
    elif session is not None:
        prime = session.revision == LEGACY[0]
        await request.stream(numbered_events(stream, 0, prime=prime), **headers)
    else:
        await request.stream(plain_events(stream), **headers)


def _check(request: Request, message: Json) -> None:
    """Check `_meta`, headers and version, in the order of the specification."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    check_meta(meta if isinstance(meta, dict) else {})
    if request.doubled:
        raise RefusedError(HEADER_MISMATCH, "A header is there twice.", status=400)
    check_headers(message["method"], params or {}, request.headers)
    check_version(meta or {})


def _parsed(body: bytes) -> Json:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise RefusedError(PARSE_ERROR, "Parse error", status=400) from error
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise RefusedError(INVALID_REQUEST, "Send one JSON-RPC 2.0 message.", status=400)
    return message
