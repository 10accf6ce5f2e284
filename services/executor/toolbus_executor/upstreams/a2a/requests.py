"""JSON-RPC requests to an agent, with responses as JSON or as a stream of events."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.transport.http1 import Head
from toolbus_executor.transport.sse_parser import EventReader
from toolbus_executor.upstreams.a2a.card import Interface
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.openapi.http import bytes_of
from toolbus_executor.upstreams.openapi.security import Credentials

LARGEST_STREAM = 64 * 1024 * 1024  # bytes of one stream, of which most are replaced artifacts
LONGEST_BODY = 500
_DEAD = (502, 503, 504)
_REDIRECTIONS = range(300, 400)
_ERRORS = 400
_IN_PATHS = "/?%:@!$&'()*+,;=~-._[]"

# Receives the result of a response and its size in bytes. Returns True after the last result.
OnResult = Callable[[Any, int], bool]


class AgentError(Exception):
    """The agent rejected a request. The message is its reason."""


class _Response(msgspec.Struct):
    """A JSON-RPC response."""

    result: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Response).decode


@dataclass(slots=True)
class Requests:
    """The requests of one call. `bearer` is the caller's token, if the agent requires OAuth."""

    transport: Transport
    interface: Interface
    credentials: Credentials
    call: CallAdmitted | None = None
    bearer: Bearer | None = None

    async def send(self, method: str, params: dict[str, Any], on_result: OnResult) -> None:
        """Send a request. The results of its response are passed to `on_result`.

        Raises:
            AgentError: the agent rejected the request.
            UpstreamDeadError: the agent cannot be reached, or the connection broke.
            UpstreamInvalidError: the response is malformed or too large.

        """
        stream = _Stream(self._struck, on_result)
        request = self._request(method, params)
        head, body = await self.transport.request(request, stream, None, bearer=self.bearer)
        if stream.error is not None:
            raise stream.error
        if not head.is_stream:
            on_result(*self._single(head, body))

    def _request(self, method: str, params: dict[str, Any]) -> bytes:
        interface = self.interface
        headers = [
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
            ("A2A-Version", interface.protocol.version),
            *(self.transport.headers_of(self.call) if self.call is not None else ()),
        ]
        if interface.tenant:
            params = {"tenant": interface.tenant, **params}
        body = {
            "jsonrpc": "2.0", "id": next(self.transport.numbers), "method": method,
            "params": params,
        }  # fmt: skip
        path = path_of(interface.url)
        return bytes_of("POST", path, self.transport.common, headers, msgspec.json.encode(body))

    def _single(self, head: Head, body: bytes) -> tuple[Any, int]:
        if head.status in _REDIRECTIONS:
            raise AgentError(
                f"it returned HTTP {head.status}, a redirect; it was not followed. Configure the "
                "current URL of the agent."
            )
        refuse_dead(head)
        body = self._struck(body)
        try:
            return result_in(body), len(body)
        except GarbageError:
            if head.status < _ERRORS:
                raise
        text = body[:LONGEST_BODY].decode("utf-8", "replace").strip()
        raise AgentError(f"it returned HTTP {head.status}: {text or 'without a reason'}")

    def _struck(self, body: bytes) -> bytes:
        """Return a response without the secrets that requests contain."""
        body = self.credentials.struck(body)
        bearer = self.bearer or self.transport.bearer
        return body if bearer is None else bearer.struck(body)


class _Stream:
    """Receiver of the events of one response. It is a callback, so it stores errors in `error`."""

    def __init__(self, struck: Callable[[bytes], bytes], on_result: OnResult) -> None:
        self._struck = struck
        self._on_result = on_result
        self._events = EventReader()
        self._size = 0
        self.error: Exception | None = None

    def __call__(self, piece: bytes) -> bool:
        """Parse a piece of the stream. Return whether the stream can end."""
        self._size += len(piece)
        try:
            if self._size > LARGEST_STREAM:
                raise UpstreamInvalidError(
                    f"The agent's stream exceeds {LARGEST_STREAM} bytes; request less."
                )
            for data in self._events.feed(piece):
                raw = self._struck(data)
                if self._on_result(result_in(raw), len(raw)):
                    return True
        except (ToolbusError, AgentError) as error:
            self.error = error
        return self.error is not None


def result_in(raw: bytes) -> Any:
    """Return the result in a JSON-RPC response.

    Raises:
        AgentError: the response is an error.
        GarbageError: the text is not a JSON-RPC response.

    """
    try:
        response = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise GarbageError("The agent's response is not JSON-RPC; fix the agent.") from error
    failure = response.error
    if isinstance(failure, dict):
        raise AgentError(f"error {failure.get('code')}: {failure.get('message')}")
    if response.result is None:
        raise GarbageError("The agent's response has neither a result nor an error; fix the agent.")
    return response.result


def refuse_dead(head: Head) -> None:
    """Raise `UpstreamDeadError`, which counts as a failure, if the agent is unavailable."""
    if head.status in _DEAD:
        raise UpstreamDeadError(f"The agent returned HTTP {head.status}; check its log.")


def path_of(url: str) -> str:
    """Return the path of a URL with its query, in characters that a request line may contain."""
    target = urlsplit(url)
    path = target.path or "/"
    return quote(f"{path}?{target.query}" if target.query else path, safe=_IN_PATHS)
