"""A stateless server over HTTP: self-contained requests, and one stream of notifications."""

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from toolbus_common.contracts import NOTHING, TOOLS_CALL, CallAdmitted, CatalogEntry
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.mcp_messages.request_builder import (
    MODERN,
    call_body,
    head_of,
    listen_body,
    name_of,
    request_body,
    with_body,
)
from toolbus_executor.transport.http1 import DEFAULT_SECONDS
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.dispatcher import MessageDispatcher
from toolbus_executor.upstreams.mcp.http_transport import AnswerStream, Transport, message_in
from toolbus_executor.upstreams.mcp.param_headers import Param, header_lines, params_of
from toolbus_executor.upstreams.subscriptions import (
    listen_params,
    refuse_unless_following,
    refuse_unless_subscribable,
)

log = logging.getLogger(__name__)

HEADER_MISMATCH, OTHER_REVISION = -32020, -32022
_PROBE_SECONDS = 5.0
_LISTEN_PAUSE = 3.0  # seconds before a stream is reopened
_LISTEN_SECONDS = 300.0  # after this time a stream is reopened, because it may be broken
_SUBSCRIBE_SECONDS = 5.0  # timeout of the first message of a stream


class ModernHttp:
    """A stateless server over HTTP, of revision 2026-07-28."""

    sends_requests = False

    def __init__(self, transport: Transport, news: UpstreamCallbacks) -> None:
        self._transport = transport
        self._news = news
        self._dispatcher = MessageDispatcher(news, lambda _body: None)
        self._dispatcher.may_ask = False
        self._heads: dict[str, bytes] = {}
        self._params: dict[str, tuple[Param, ...]] = {}
        self._described = Described("modern", MODERN)
        self._watched: frozenset[str] = frozenset()
        self._followed: frozenset[str] = frozenset()
        self._listening: asyncio.Task[None] | None = None

    async def discover(self) -> Described | None:
        """Return the server's description; None if it supports no modern revision."""
        try:
            message = await self._request("server/discover", {}, _PROBE_SECONDS)
            if _contradicts_itself(message):
                message = await self._request("server/discover", {}, _PROBE_SECONDS)
            found = messages.discovered(message)
        except (UpstreamInvalidError, TimeoutError):
            return None
        except UpstreamDeadError as error:
            if not error.data.get("sent", True):
                raise
            return None  # it closed the connection at an unknown request
        if found is not None:
            self._described = found
            await self._resubscribe()
        return found

    async def list_page(
        self, method: str, cursor: str | None, capabilities: str = NOTHING
    ) -> dict[str, Any]:
        """Return one page of a list, for clients with these capabilities."""
        params = {} if cursor is None else {"cursor": cursor}
        message = await self._request(method, params, capabilities=capabilities)
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    async def probe(self) -> None:
        """Send a request without effects. A JSON-RPC error counts as a response."""
        await self._request("server/discover", {})

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store which arguments of each tool must be repeated as headers."""
        found = {tool.name: params_of(tool.definition.get("inputSchema")) for tool in tools}
        self._params = {name: params for name, params in found.items() if params}

    async def call(
        self, call: CallAdmitted, seconds: float, caller: Caller, *, relisted: bool = False
    ) -> bytes:
        """Send a call and return its raw result.

        If the headers did not match, the list is refreshed, and the call is sent once more.
        """
        began, transport = monotonic(), self._transport
        number = next(transport.numbers)
        request = self._request_of(call, number)
        answer = AnswerStream(number, partial(self._dispatcher.take, caller=caller), caller)
        answer.spills = transport.spills
        # The history of the connection is not needed: log messages arrive on the call's stream.
        self._dispatcher.callers[number] = caller
        try:
            response, text = await transport.request(request, answer, seconds, answer)
            if answer.streamed:
                await answer.completed()
        finally:
            del self._dispatcher.callers[number]
            if caller.questions:
                self._dispatcher.answer_unshown(caller)
        message = answer.message or message_in(response, text, number)
        if message.error is not None:
            if message.error_code == HEADER_MISMATCH and not relisted:
                # The server ran nothing: its schema differs from the listed one.
                await self._news.relist(call)
                left = seconds - (monotonic() - began)
                return await self.call(call, left, caller, relisted=True)
            self._check_revision(message)
        return transport.result_of(message, self._news)

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources."""
        if uris - self._watched:
            refuse_unless_subscribable(self._described)
        if uris != self._watched:
            self._watched = uris
            await self._resubscribe()

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks."""
        if tasks:
            refuse_unless_following(self._described)
        if tasks != self._followed:
            self._followed = tasks
            await self._resubscribe()

    async def close(self) -> None:
        """Close the stream."""
        if self._listening is not None:
            self._listening.cancel()

    def _check_revision(self, message: messages.Incoming) -> None:
        """Raise `UpstreamDeadError` if an error means that the server's revision has changed."""
        if message.error_code == OTHER_REVISION:
            self._transport.lose("Its protocol revision has changed, so it is reconnected.")
            raise UpstreamDeadError(
                "The protocol revision of the upstream has changed, so it is reconnected; retry "
                "shortly.",
                sent=False,
            )

    def _request_of(self, call: CallAdmitted, number: int) -> bytes:
        head = self._heads.get(call.tool) if call.method == TOOLS_CALL else None
        if head is None:
            head = self._head(call.method, name_of(call))
            if call.method == TOOLS_CALL:
                self._heads[call.tool] = head
        params = self._params.get(call.tool) if call.method == TOOLS_CALL else None
        if params:
            head += header_lines(params, call.arguments)
        head += self._transport.lines_of(call)
        return with_body(head, call_body(call, number, modern=True))

    async def _request(
        self,
        method: str,
        params: dict[str, Any],
        seconds: float = DEFAULT_SECONDS,
        capabilities: str = NOTHING,
    ) -> messages.Incoming:
        number = next(self._transport.numbers)
        body = request_body(number, method, params, modern=True, capabilities=capabilities)
        answer = AnswerStream(number)
        request = with_body(self._head(method), body)
        response, text = await self._transport.exchange(request, answer, seconds)
        return answer.message or message_in(response, text, number)

    def _head(self, method: str, name: str = "") -> bytes:
        return head_of(
            self._transport.prefix, method, name, modern=True, version=MODERN, session=b""
        )

    # -- notifications ------------------------------------------------------------------------

    async def _resubscribe(self) -> None:
        """Open the stream for the current subscriptions, then close the previous stream."""
        before, self._listening = self._listening, None
        params = listen_params(self._described, self._watched, self._followed)
        if params is not None:
            subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._listening = asyncio.create_task(self._listen(params, subscribed))
            if before is not None or self._watched or self._followed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SUBSCRIBE_SECONDS):
                        await subscribed
        if before is not None:
            before.cancel()

    async def _listen(self, params: dict[str, Any], subscribed: "asyncio.Future[None]") -> None:
        while True:
            try:
                if not await self._listen_once(params, subscribed):
                    return
            except (ToolbusError, TimeoutError) as error:
                log.debug("upstream.stream_ended", extra={"reason": str(error)})
            await asyncio.sleep(_LISTEN_PAUSE)
            # A change may have been missed without a stream.
            self._news.on_lists_changed()

    async def _listen_once(
        self, params: dict[str, Any], subscribed: "asyncio.Future[None]"
    ) -> bool:
        def receive(message: messages.Incoming) -> None:
            if not subscribed.done():
                subscribed.set_result(None)
            self._dispatcher.take_apart(message)

        number = next(self._transport.numbers)
        body = listen_body(number, params)
        request = with_body(self._head("subscriptions/listen"), body)
        try:
            answer = AnswerStream(number, receive)
            head, _ = await self._transport.exchange(request, answer, _LISTEN_SECONDS)
        finally:
            if not subscribed.done():
                subscribed.set_result(None)  # also if the stream cannot be opened
        return head.is_stream


def _contradicts_itself(message: messages.Incoming) -> bool:
    """Return whether the server rejected a revision that it also lists as supported."""
    data = message.error.get("data") if isinstance(message.error, dict) else None
    supported = data.get("supported") if isinstance(data, dict) else None
    other = message.error_code == OTHER_REVISION
    return other and isinstance(supported, list) and MODERN in supported
