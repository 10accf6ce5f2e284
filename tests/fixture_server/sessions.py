"""Requests in progress and, in the handshake family, their sessions."""

import asyncio
import secrets
from typing import Any

from .call import Call
from .methods import Fixture
from .notifications import LISTS, Listener
from .request_checks import Headers
from .stream import Stream
from .wire import (
    CAPABILITIES,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    LEGACY,
    Json,
    ProtocolFamily,
    RefusedError,
    failure,
    notification,
    response,
)

ASK_SECONDS = 60.0
_KEPT_STREAMS = 50
_SHOWN = ("mcp-", "authorization", "traceparent", "tracestate", "baggage", "toolbus-")
_EVERYTHING: Json = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}


class StatelessPeer:
    """The back-channel of a stateless request: the stream of its answer."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def notify(self, message: Json) -> None:
        """Send a notification with the answer."""
        self._stream.put(message)

    async def request(self, _method: str, _params: Json) -> Json:
        """Fail: this family has no requests in this direction."""
        raise RefusedError(INTERNAL_ERROR, "The stateless family has no requests from servers.")

    def pause(self) -> bool:
        """Do nothing: closing the connection would cancel the request."""
        return False


def modern_call(fixture: Fixture, message: Json, stream: Stream, headers: Headers) -> Call:
    """Return the call of a stateless request."""
    params = dict(message.get("params") or {})
    meta = params.get("_meta")
    capabilities = meta.get(CAPABILITIES) if isinstance(meta, dict) else None
    see(fixture, ProtocolFamily.MODERN, message["method"], params, headers)
    if message["method"] == "subscriptions/listen":
        params["subscription"] = message["id"]
    return Call(
        ProtocolFamily.MODERN,
        message["method"],
        params,
        capabilities if isinstance(capabilities, dict) else {},
        StatelessPeer(stream),
        lax=fixture.lax,
    )


def see(
    fixture: Fixture, family: ProtocolFamily, method: str, params: Json, headers: Headers
) -> None:
    """Count a request."""
    shown = {name: value for name, value in headers.items() if name.startswith(_SHOWN)}
    fixture.seen.request(family.value, method, params, shown)


async def run(fixture: Fixture, call: Call, request_id: Any, stream: Stream) -> None:
    """Write the answer of a call into its stream, also after an error."""
    try:
        stream.finish(response(request_id, await fixture.answer(call)))
    except RefusedError as refusal:
        status = refusal.status if call.family is ProtocolFamily.MODERN else 200
        stream.finish(failure(request_id, refusal), status)
    except asyncio.CancelledError:
        fixture.seen.cancel(str(call.params.get("name") or call.method))
        stream.finish()
        raise
    except Exception as error:
        stream.finish(failure(request_id, RefusedError(INTERNAL_ERROR, repr(error))))
        raise


class Session:
    """One client of the handshake family."""

    def __init__(
        self, fixture: Fixture, session_id: str = "", standing: Stream | None = None
    ) -> None:
        self.id = session_id or secrets.token_urlsafe(24)
        self.capabilities: Json = _EVERYTHING if fixture.lax else {}
        self.revision = LEGACY[0]
        self.standing = standing or Stream("get")
        self.streams: dict[str, Stream] = {self.standing.name: self.standing}
        self._fixture = fixture
        self._level: str | None = "info"
        self._running: dict[Any, asyncio.Task[None]] = {}
        self._pending: dict[str, asyncio.Future[Json]] = {}
        self._made = 0
        self._listener = Listener(self._tell, lists=frozenset(LISTS), statuses=True)
        fixture.notifier.listeners.add(self._listener)

    def stream(self) -> Stream:
        """Return a new stream for one answer."""
        self._made += 1
        made = Stream(f"s{self._made}")
        self.streams[made.name] = made
        for name in list(self.streams)[1:-_KEPT_STREAMS]:
            del self.streams[name]
        return made

    def begin(self, message: Json, stream: Stream, headers: Headers) -> asyncio.Task[None]:
        """Start to answer a request into a stream."""
        method, params = message["method"], dict(message.get("params") or {})
        see(self._fixture, ProtocolFamily.LEGACY, method, params, headers)
        self._remember(method, params)
        call = Call(
            ProtocolFamily.LEGACY,
            method,
            params,
            self.capabilities,
            _SessionPeer(self, stream),
            self._level,
            self._fixture.lax,
            self.revision,
        )
        request_id = message["id"]
        if request_id in self._running and not self._fixture.lax:
            raise RefusedError(INVALID_REQUEST, "This id is under way already.", status=400)
        task = asyncio.create_task(run(self._fixture, call, request_id, stream))
        self._running[request_id] = task
        task.add_done_callback(lambda _: self._running.pop(request_id, None))
        return task

    def handle(self, message: Json) -> None:
        """Handle a notification or an answer."""
        if message.get("method") == "notifications/cancelled":
            running = self._running.get((message.get("params") or {}).get("requestId"))
            if running is not None:
                running.cancel()
        elif "method" not in message:
            request = self._pending.get(str(message.get("id")))
            if request is not None and not request.done():
                request.set_result(message)

    async def ask(self, method: str, params: Json, stream: Stream) -> Json:
        """Send a request on a stream and wait for the answer."""
        request_id = f"ask-{secrets.token_hex(6)}"
        request: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = request
        stream.put({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await request
        except TimeoutError as error:
            raise RefusedError(INTERNAL_ERROR, "The client did not answer in time.") from error
        finally:
            del self._pending[request_id]
        if "error" in answer:
            outcome = answer["error"]
            raise RefusedError(outcome.get("code", INTERNAL_ERROR), outcome.get("message", ""))
        result: Json = answer.get("result") or {}
        return result

    def close(self) -> None:
        """End all requests and streams of the session."""
        self._fixture.notifier.listeners.discard(self._listener)
        for task in list(self._running.values()):
            task.cancel()
        self.standing.finish()

    def _remember(self, method: str, params: Json) -> None:
        if method == "initialize":
            self.capabilities = params.get("capabilities") or {}
            request = params.get("protocolVersion")
            self.revision = request if request in LEGACY else LEGACY[0]
        elif method == "logging/setLevel":
            self._level = params.get("level")
        elif method == "resources/subscribe":
            self._listener.resources.add(str(params.get("uri")))
        elif method == "resources/unsubscribe":
            self._listener.resources.discard(str(params.get("uri")))

    def _tell(self, method: str, params: Json) -> None:
        self.standing.put(notification(method, params))


class _SessionPeer:
    """The back-channel of a request in a session."""

    def __init__(self, session: Session, stream: Stream) -> None:
        self._session = session
        self._stream = stream

    def notify(self, message: Json) -> None:
        """Send a notification with the answer."""
        self._stream.put(message)

    async def request(self, method: str, params: Json) -> Json:
        """Send a request on the stream of the answer."""
        return await self._session.ask(method, params, self._stream)

    def pause(self) -> bool:
        """Close the connection if the client can resume it."""
        knows = self._session.revision == LEGACY[0]
        if knows:
            self._stream.pause()
        return knows
