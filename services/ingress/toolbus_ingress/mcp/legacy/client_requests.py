"""Requests to session-based clients: sent on the stream of a call, answered by a POST."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from toolbus_common.contracts import ERROR
from toolbus_common.errors import InvalidError
from toolbus_ingress.http.jsonrpc import INTERNAL_ERROR
from toolbus_ingress.mcp.tasks import RELATED
from toolbus_ingress.sessions.session_store import Session

RESPONSE_SECONDS = 300.0  # how long a person may take to respond
MAX_ROUNDS = 32  # requests for input within one call
LONGEST_MESSAGE = 2000  # characters of an error's message

_CAPABILITIES = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}


ClientResponse = asyncio.Future[dict[str, Any] | None]


class PendingClientRequests:
    """Requests to clients whose responses this replica awaits, by JSON-RPC id.

    A response is None if the client cancelled its own request, or if the session ended.
    """

    def __init__(self) -> None:
        self._pending: dict[str, tuple[str, bytes, ClientResponse]] = {}

    def resolve(self, sid: str, body: bytes) -> bool:
        """Accept a client's response; return whether this replica awaits it in this session."""
        message = msgspec.json.decode(body)
        requested_sid, _, response = self._pending.get(str(message.get("id")), ("", b"", None))
        if response is None or requested_sid != sid:
            return False
        if not response.done():
            response.set_result(message)
        return True

    def cancel(self, sid: str, request: bytes) -> None:
        """Cancel the requests that were sent to the client because of its request `request`."""
        for pending_sid, cause, response in self._pending.values():
            if (pending_sid, cause) == (sid, request) and not response.done():
                response.set_result(None)

    @asynccontextmanager
    async def open(self, sid: str, request: bytes) -> AsyncIterator[tuple[str, ClientResponse]]:
        """Yield the id for a new request to a client, and its future response."""
        number = f"toolbus-{secrets.token_hex(8)}"
        response: ClientResponse = asyncio.get_running_loop().create_future()
        self._pending[number] = sid, request, response
        try:
            yield number, response
        finally:
            del self._pending[number]


def client_request(number: str, input_request: Any, session: Session, task: str = "") -> bytes:
    """Encode one entry of `inputRequests` as a request to a session-based client.

    `number` is the request's id. `task` is the handle of the request's task, or empty.

    Raises:
        InvalidError: the client did not declare the capability.

    """
    method = input_request.get("method") if isinstance(input_request, dict) else None
    params = input_request.get("params") if isinstance(input_request, dict) else None
    if not isinstance(method, str) or method not in _CAPABILITIES:
        raise InvalidError(
            "The server requests input of a kind that this gateway cannot forward. Pass everything "
            "the tool needs as arguments."
        )
    params = dict(params) if isinstance(params, dict) else {}
    if not _is_declared(session, _CAPABILITIES[method], params.get("mode")):
        raise InvalidError(
            f"The server requires {_CAPABILITIES[method]}, which this client did not declare. Use "
            "a client that supports it, or pass everything the tool needs as arguments."
        )
    if params.get("mode") == "url":
        if not session.can("elicitation", "url"):
            raise InvalidError(
                "The server requires a page to be opened, which this client cannot do. Open "
                f"{params.get('url')} yourself, then retry."
            )
        params.setdefault("elicitationId", number)
    elif params.get("mode") == "form" and session.claims.version < "2025-11-25":
        del params["mode"]
    if task:
        meta = params.get("_meta")
        related = {RELATED: {"taskId": task}}
        params["_meta"] = {**(meta if isinstance(meta, dict) else {}), **related}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def _is_declared(session: Session, kind: str, mode: Any) -> bool:
    """Return whether the client declared requests of this kind and mode.

    A client that lists modes of elicitation supports only these modes.
    """
    modes = session.declared.get("elicitation")
    any_mode = kind != "elicitation" or mode == "url" or not isinstance(modes, dict) or not modes
    return session.can(kind) and (any_mode or session.can(kind, "form"))


def input_response(message: dict[str, Any], method: str) -> dict[str, Any]:
    """Return a client's response as an entry of `inputResponses`.

    An error is put in `_meta`. For an elicitation, the action `cancel` is added for servers that do
    not read the error.
    """
    if isinstance(message.get("result"), dict):
        result: dict[str, Any] = message["result"]
        return result
    error = message.get("error")
    if not isinstance(error, dict) or type(error.get("code")) is not int:
        error = {"code": INTERNAL_ERROR, "message": "The client's response has no result."}
    forwarded = {"code": error["code"], "message": str(error.get("message", ""))[:LONGEST_MESSAGE]}
    if "data" in error:
        forwarded["data"] = error["data"]
    action = {"action": "cancel"} if method == "elicitation/create" else {}
    return {**action, "_meta": {ERROR: forwarded}}
