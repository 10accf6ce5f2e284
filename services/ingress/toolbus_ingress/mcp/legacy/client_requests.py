"""Requests to handshake-family clients: sent on the stream of a call, answered by a POST."""

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

PATIENCE = 300.0  # seconds a person has to answer
MOST_ROUNDS = 32  # of questions within one call
LONGEST_MESSAGE = 2000  # characters of an error's message

_NEEDS = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}


Answer = asyncio.Future[dict[str, Any] | None]


class Questions:
    """What this replica waits to hear from clients, by the id it asked under.

    An answer is None when the client took back the request that led to the question.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, bytes, Answer]] = {}

    def heard(self, sid: str, body: bytes) -> bool:
        """Take a client's answer; whether it was asked for here and in this session."""
        message = msgspec.json.decode(body)
        sid_asked, _, answer = self._waiting.get(str(message.get("id")), ("", b"", None))
        if answer is None or sid_asked != sid:
            return False
        if not answer.done():
            answer.set_result(message)
        return True

    def give_up(self, sid: str, request: bytes) -> None:
        """Wait no more for answers that a request of a session needs."""
        for asked, about, answer in self._waiting.values():
            if (asked, about) == (sid, request) and not answer.done():
                answer.set_result(None)

    @asynccontextmanager
    async def asking(self, sid: str, request: bytes) -> AsyncIterator[tuple[str, Answer]]:
        """An id to ask under for a request, and the answer to come."""
        number = f"toolbus-{secrets.token_hex(8)}"
        answer: Answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = sid, request, answer
        try:
            yield number, answer
        finally:
            del self._waiting[number]


def question(number: str, asked: Any, session: Session, task: str = "") -> bytes:
    """One entry of `inputRequests` as a request of the handshake families; `task` is whose it is.

    Raises:
        InvalidError: the client did not declare that it can be asked this.

    """
    method = asked.get("method") if isinstance(asked, dict) else None
    params = asked.get("params") if isinstance(asked, dict) else None
    if not isinstance(method, str) or method not in _NEEDS:
        raise InvalidError("The server asks for something that this gateway cannot pass on.")
    params = dict(params) if isinstance(params, dict) else {}
    if not _declared(session, _NEEDS[method], params.get("mode")):
        raise InvalidError(
            f"The server asks for {_NEEDS[method]}, which this client did not declare; use a "
            "client that offers it, or give the tool all it needs."
        )
    if params.get("mode") == "url":
        if not session.can("elicitation", "url"):
            raise InvalidError(
                f"The server asks to open a page, which this client cannot do. Open "
                f"{params.get('url')} yourself, then retry."
            )
        params.setdefault("elicitationId", number)
    elif params.get("mode") == "form" and session.claims.version < "2025-11-25":
        del params["mode"]
    if task:
        meta = params.get("_meta")
        own = {RELATED: {"taskId": task}}
        params["_meta"] = {**(meta if isinstance(meta, dict) else {}), **own}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def _declared(session: Session, kind: str, mode: Any) -> bool:
    """Whether the client offers it; who names the modes of elicitation offers no others."""
    modes = session.declared.get("elicitation")
    unnamed = kind != "elicitation" or mode == "url" or not isinstance(modes, dict) or not modes
    return session.can(kind) and (unnamed or session.can(kind, "form"))


def answer_of(message: dict[str, Any], method: str) -> dict[str, Any]:
    """Return a client's answer as an entry of `inputResponses`.

    An error travels in `_meta`, and beside it what says the same to a server that takes no errors.
    """
    if isinstance(message.get("result"), dict):
        result: dict[str, Any] = message["result"]
        return result
    error = message.get("error")
    if not isinstance(error, dict) or type(error.get("code")) is not int:
        error = {"code": INTERNAL_ERROR, "message": "The client's answer has no result."}
    told = {"code": error["code"], "message": str(error.get("message", ""))[:LONGEST_MESSAGE]}
    if "data" in error:
        told["data"] = error["data"]
    own = {"action": "cancel"} if method == "elicitation/create" else {}
    return {**own, "_meta": {ERROR: told}}
