"""A call with progress: an event stream once there is any to tell, else plain JSON."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from toolbus_common.calllane import CallLane
from toolbus_common.contracts import CallRequested, Told
from toolbus_common.errors import ToolbusError
from toolbus_ingress import jsonrpc
from toolbus_ingress.jsonrpc import Response

Send = Callable[[dict[str, Any]], Awaitable[None]]

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
    ],
}
MOST_WAITING = 64  # progress frames a slow reader may be behind; older ones say less than newer


class ProgressStream:
    """One response that may become an event stream."""

    def __init__(self, send: Send, request_id: bytes, token: str | int) -> None:
        self._send = send
        self._id = request_id
        self._token = msgspec.json.encode(token)
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._started = False

    async def follow(self, lane: CallLane, call: CallRequested) -> Response | None:
        """Make the call, telling its progress as it comes; None when the answer was streamed.

        Raises:
            ToolbusError: the call failed before anything was streamed.

        """
        ending = asyncio.ensure_future(lane.ask(call, self._take))
        ending.add_done_callback(lambda _: self._frames.put_nowait(None))
        while (frame := await self._frames.get()) is not None:
            await self._notify(frame)
        try:
            answer = jsonrpc.result(self._id, ending.result().body)
        except ToolbusError as error:
            if not self._started:
                raise
            answer = jsonrpc.failure(error, self._id, call.call_id)
        if not self._started:
            return answer
        await self._event(answer.body, more=False)
        return None

    def _take(self, told: Told) -> None:
        if self._frames.qsize() < MOST_WAITING:
            self._frames.put_nowait(told.body)

    async def _notify(self, body: bytes) -> None:
        if not self._started:
            self._started = True
            await self._send(_START)
        params = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        params["progressToken"] = msgspec.Raw(self._token)
        await self._event(
            b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}'
            % msgspec.json.encode(params),
            more=True,
        )

    async def _event(self, message: bytes, *, more: bool) -> None:
        event = b"event: message\ndata: %b\n\n" % message
        await self._send({"type": "http.response.body", "body": event, "more_body": more})
