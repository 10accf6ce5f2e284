"""Upstream for an A2A agent. Its card lists the skills; a call is a message to the agent."""

import asyncio
from contextlib import suppress
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.a2a.protocol import File, Json, Part, Protocol
from toolbus_common.concurrency import Tasks
from toolbus_common.config import Server
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import (
    InvalidArgumentsError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamInvalidError,
)
from toolbus_common.openapi.servers import origin
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import DEFAULT_SECONDS, Head
from toolbus_executor.upstreams.a2a.answer import Answer
from toolbus_executor.upstreams.a2a.card import WELL_KNOWN, Card, CardError, card_in
from toolbus_executor.upstreams.a2a.exchange import Exchange
from toolbus_executor.upstreams.a2a.handles import Handles
from toolbus_executor.upstreams.a2a.requests import AgentError, Requests, path_of, refuse_dead
from toolbus_executor.upstreams.a2a.results import refused, result_of
from toolbus_executor.upstreams.a2a.skills import Operation, operations_in
from toolbus_executor.upstreams.api_upstream import ApiUpstream, no_such_method
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.openapi.http import bytes_of
from toolbus_executor.upstreams.openapi.security import Credentials

TASK_ID, CONTEXT_ID = "task_id", "context_id"
CANCEL_SECONDS = 5.0
_NOT_FOUND, _OK, _REDIRECTIONS, _ERRORS, _SERVER_ERROR = 404, 200, 300, 400, 500


class _Arguments(msgspec.Struct):
    """The arguments of a call, as the tool's schema describes them."""

    message: str = ""
    data: dict[str, Any] | None = None
    files: list[dict[str, str]] = []
    task_id: str = ""
    context_id: str = ""


_decode = msgspec.json.Decoder(_Arguments).decode


class A2aUpstream(ApiUpstream[Operation]):
    """An agent. Its card is read again every `refresh` seconds.

    The configured headers are sent to the address of the requests, and with the card's request
    only if it has the same origin.
    """

    def __init__(
        self,
        declared: Server,
        headers: dict[str, str],
        news: UpstreamCallbacks,
        way: Dialer,
        handles: Handles,
        bearer: Bearer | None = None,
    ) -> None:
        super().__init__(news, declared.refresh)
        self._declared = declared
        self._handles = handles
        base = declared.base_url or declared.a2a
        self._transport = Transport(base, headers, way)
        self._transport.bearer = bearer
        same = origin(base) == origin(declared.a2a)
        self._cards = self._transport if same else Transport(declared.a2a, {}, way)
        self._credentials = Credentials({}, {}, headers)
        self._card: Card | None = None
        self._card_path = ""
        self._cancellations = Tasks()

    async def open(self) -> Described:
        """Read the card."""
        await self._read()
        self._fresh = True
        assert self._card is not None  # noqa: S101 - set by _read
        return Described("a2a", self._card.interface.protocol.version, "", {"tools": {}})

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a message to the agent, and return its answer as a tool result."""
        return await self.call_as(self._transport.bearer, call, seconds, caller)

    async def call_as(
        self,
        bearer: Bearer | None,
        call: CallAdmitted,
        seconds: float,
        caller: Caller | None = None,
    ) -> bytes:
        """Send a message with this token, and return the answer as a tool result."""
        if call.method != TOOLS_CALL:
            raise no_such_method()
        async with asyncio.timeout(seconds):
            operation = await self._operation(call)
        card = self._card
        assert card is not None  # noqa: S101 - set before any operation
        arguments = _arguments(call)
        answer = Answer(
            self._handles.own(TASK_ID, arguments.task_id, call),
            self._handles.own(CONTEXT_ID, arguments.context_id, call),
        )
        message = _message(card.interface.protocol, arguments, answer, operation.skill.id)
        requests = Requests(self._transport, card.interface, self._credentials, call, bearer)
        exchange = Exchange(
            requests, answer, card.streams, caller, lambda task: self._cancel(requests, task)
        )
        try:
            await exchange.run(message, seconds)
        except AgentError as error:
            return refused(f"The agent rejected the request: {error}")
        task = self._handles.of(TASK_ID, answer.task, call) if answer.task else ""
        context = self._handles.of(CONTEXT_ID, answer.context, call) if answer.context else ""
        return result_of(answer, task, context)

    async def probe(self) -> None:
        """Read the card, without using it."""
        head, _ = await self._fetched(self._card_path)
        if head.status >= _SERVER_ERROR:
            raise UpstreamDeadError(f"The agent returned HTTP {head.status}; check its log.")

    async def close(self) -> None:
        """Close the connections."""
        self.lose("closed")
        await self._cancellations.end()
        self._transport.close()
        self._cards.close()

    async def _read(self) -> None:
        """Read the card, and replace all operations. An error leaves them unchanged."""
        head, body, path = await self._found()
        if _REDIRECTIONS <= head.status < _ERRORS:
            raise UpstreamInvalidError(
                f"The agent's card has moved (HTTP {head.status}); set its address with 'a2a'."
            )
        if head.status != _OK:
            raise UpstreamInvalidError(
                f"The agent's card cannot be read (HTTP {head.status}); set the address of the "
                "agent or of its card with 'a2a'."
            )
        declared = self._declared
        try:
            card = card_in(body, declared.a2a, declared.base_url)
        except CardError as error:
            raise UpstreamInvalidError(f"The agent's card cannot be used: {error}.") from error
        self._operations, self.left_out = operations_in(card, declared.operations)
        self._card, self._card_path = card, path

    async def _found(self) -> tuple[Head, bytes, str]:
        """Return the response with the card, and its path. Older agents have another path."""
        own = path_of(self._declared.a2a)
        if urlsplit(self._declared.a2a).path.endswith(".json"):
            return *await self._fetched(own), own
        base = own.partition("?")[0].rstrip("/")
        for path in (base + each for each in WELL_KNOWN):
            head, body = await self._fetched(path)
            if head.status != _NOT_FOUND:
                break
        return head, body, path

    async def _fetched(self, path: str) -> tuple[Head, bytes]:
        headers = (("Accept", "application/json"),)
        request = bytes_of("GET", path, self._cards.common, headers)
        head, body = await self._cards.request(request, None, DEFAULT_SECONDS)
        refuse_dead(head)
        return head, body

    def _cancel(self, requests: Requests, task: str) -> None:
        """Cancel a task at the agent in the background."""

        async def cancel() -> None:
            with suppress(AgentError, ToolbusError, TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    method = requests.interface.protocol.cancel
                    await requests.send(method, {"id": task}, lambda _result, _size: True)

        self._cancellations.start(cancel())


def _arguments(call: CallAdmitted) -> _Arguments:
    """Return the arguments of a call. They match the schema unless validation is disabled."""
    try:
        return _decode(call.arguments)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgumentsError(f"Invalid arguments: {error}.", sent=False) from error


def _message(protocol: Protocol, arguments: _Arguments, answer: Answer, skill: str) -> Json | None:
    """Return the message to the agent; None if the call only asks for the result of a task."""
    parts = [Part(text=arguments.message)] if arguments.message else []
    parts += [Part(data=arguments.data)] if arguments.data is not None else []
    for each in arguments.files:
        words = (each.get(name, "") for name in ("base64", "url", "name", "media_type"))
        parts.append(Part(file=File(*words)))
    if not parts:
        if answer.task:
            return None
        raise InvalidArgumentsError(
            "Invalid arguments: give a message, data, files, or the task_id of a task to wait for.",
            sent=False,
        )
    written = [protocol.part(each) for each in parts]
    message = protocol.message(token_hex(16), written, answer.task, answer.context)
    return message | {"metadata": {"skillId": skill}}
