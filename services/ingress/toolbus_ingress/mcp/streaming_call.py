"""One call that sends notifications before its result, or requests to its client."""

import asyncio
from collections.abc import Callable
from time import time
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.contracts import (
    CallNotification,
    CallRequested,
    FinalReply,
    InputRequired,
    Notification,
    Progress,
    ProtocolFamily,
    StreamPaused,
)
from toolbus_common.errors import CallCancelledError, InvalidError
from toolbus_common.messaging.call_transport import CallTransport
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.mcp.legacy.client_requests import (
    MAX_ROUNDS,
    RESPONSE_SECONDS,
    PendingClientRequests,
    client_request,
    input_response,
)
from toolbus_ingress.mcp.tasks import RESULT
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sampling.sampler import Sampler
from toolbus_ingress.sessions.event_log import RETRY_MS, EventLog
from toolbus_ingress.sessions.event_log_store import ANSWER_STREAM, EventLogStore
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import EventStream, serve_reader, write_events

MAX_WAITING = 256  # notifications buffered for a slow reader
LATE_SECONDS = 5.0  # after which a client without an answer receives an event id
SHORTEST_PAUSE, LONGEST_PAUSE = 100, 30_000  # milliseconds


class StreamingCall:
    """A call whose response may become an event stream."""

    def __init__(
        self,
        calls: CallTransport,
        client_requests: PendingClientRequests,
        event_logs: EventLogStore,
        context: RequestContext,
        request: Request,
        cancel: Callable[[str], None],
        sampler: Sampler | None = None,
    ) -> None:
        self._calls = calls
        self._cancel = cancel
        self._client_requests = client_requests
        self._event_logs = event_logs
        self._context = context
        self._request = request
        session = context.session
        can_poll = context.accepts_events and context.write is None
        self._polls = session is not None and session.polls and can_poll
        self._sampler = sampler
        self._event_log: EventLog | None = None  # created with the first event
        self._writer: asyncio.Task[None] | None = None
        self._suspended = ""  # id of the last call that ended with a request for input
        self._task = str(request.params.get("taskId")) if request.method == RESULT else ""
        self._seconds = 0.0  # time limit of each round, without the wait for input

    @property
    def started(self) -> bool:
        """Whether the response is already a stream, to which the result must be written too."""
        return self._event_log is not None

    async def run(self, call: CallRequested) -> FinalReply:
        """Run the call, and answer the server's requests for input as far as possible.

        The sampler answers sampling requests. Other requests are forwarded to session-based
        clients; a stateless client receives them as the reply.

        Raises:
            ToolbusError: the call failed.

        """
        self._seconds = call.deadline - time()
        first, timers = call.call_id, self._start_timers() if self._polls else []
        try:
            for _ in range(MAX_ROUNDS):
                if self._sampler is not None:
                    self._sampler.begin_round(call.call_id)
                reply = await self._calls.request(call, self._notify)
                if not isinstance(reply, InputRequired):
                    return reply
                params = await self._input(reply.body, call, first)
                if params is None:
                    return reply
                call = self._next_round(call, params, first)
            raise InvalidError(  # noqa: TRY301 - cancelled below like any other failure
                f"The server requested input {MAX_ROUNDS} times without returning a result. "
                "The call was cancelled. Pass everything the tool needs as arguments."
            )
        except BaseException:
            if self._suspended:  # the requested input will not arrive
                self._cancel(self._suspended)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            if self._sampler is not None:
                self._sampler.close()

    async def finish(self, answer: Response) -> Response | None:
        """Return the answer, or write it to the stream and return None."""
        if self._event_log is None or self._writer is None:
            return answer
        self._event_log.put(answer.body)
        self._event_log.close()
        await self._writer
        return None

    # -- events --------------------------------------------------------------------------------

    def _start_timers(self) -> list[asyncio.TimerHandle]:
        """Schedule an event id for a late answer and, if configured, the disconnection."""
        loop, poll_after = asyncio.get_running_loop(), self._event_logs.poll_after
        timers = [loop.call_later(LATE_SECONDS, self._open_stream)]
        if poll_after:
            timers.append(loop.call_later(poll_after, self._pause, RETRY_MS))
        return timers

    def _notify(self, notification: CallNotification) -> None:
        if not isinstance(notification, StreamPaused):
            self._write(self._encode(notification))
        elif self._polls:
            # The server closed its stream for a while, so the client may disconnect as well.
            self._pause(min(max(notification.milliseconds, SHORTEST_PAUSE), LONGEST_PAUSE))

    def _encode(self, notification: Progress | Notification) -> bytes:
        if not isinstance(notification, Progress):
            return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (
                strict_json.dump(notification.method), notification.body,
            )  # fmt: skip
        params = msgspec.json.decode(notification.body, type=dict[str, msgspec.Raw])
        token = strict_json.dump(self._request.meta.get("progressToken"))
        params["progressToken"] = msgspec.Raw(token)
        return b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}' % (
            msgspec.json.encode(params)
        )

    def _pause(self, retry: int) -> None:
        event_log = self._open_stream()
        if event_log.retains:
            event_log.pause(retry)

    def _write(self, message: bytes) -> None:
        (self._context.write or self._open_stream().put)(message)

    def _open_stream(self) -> EventLog:
        """Return the call's event log. At the first call, create the log and start to stream it."""
        if self._event_log is not None:
            return self._event_log
        context = self._context
        event_log = self._event_logs.open(context.session, ANSWER_STREAM, MAX_WAITING)
        self._event_log = event_log
        stream = EventStream(context.send)
        if self._polls:
            event_log.mark()
        reader = event_log.read()
        writing = (
            serve_reader(context.scope, reader, stream)
            if event_log.retains
            else write_events(reader, stream)
        )
        self._writer = asyncio.create_task(writing)
        return event_log

    # -- input ---------------------------------------------------------------------------------

    async def _input(self, body: bytes, call: CallRequested, first: str) -> dict[str, Any] | None:
        """Return the params of the next round; None if the client is to continue the call itself.

        A stateless client continues with the requests that the sampler does not answer.
        """
        modern = self._request.family is ProtocolFamily.MODERN
        if modern and self._sampler is None:
            return None
        self._suspended = call.call_id
        required = msgspec.json.decode(body)
        requests = required.get("inputRequests") or {}
        sampled = {name for name, each in requests.items() if self._samples(each)}
        if modern:
            requests = {name: each for name, each in requests.items() if name in sampled}
            if not requests:
                return None
        for name, each in requests.items():
            if name not in sampled:  # raises before anything is sent
                client_request("", each, self._session())
        sending = [
            asyncio.ensure_future(
                self._sampler.answer(each, call, first)
                if self._sampler is not None and name in sampled
                else self._request_input(each)
            )
            for name, each in requests.items()
        ]
        try:
            responses = await asyncio.gather(*sending)
        finally:
            for each in sending:
                each.cancel()
        params: dict[str, Any] = {"inputResponses": dict(zip(requests, responses, strict=True))}
        if "requestState" in required:
            params["requestState"] = required["requestState"]
        return params

    async def _request_input(self, input_request: Any) -> Any:
        session = self._session()
        async with self._client_requests.open(session.sid, self._request.id) as (number, response):
            self._write(client_request(number, input_request, session, self._task))
            try:
                async with asyncio.timeout(RESPONSE_SECONDS):
                    message = await response
            except TimeoutError as error:
                raise InvalidError(
                    f"The client did not provide the requested input within {RESPONSE_SECONDS:g} "
                    "s, so the call was cancelled. Call again."
                ) from error
        if message is None:
            raise CallCancelledError("The caller cancelled the call before providing input.")
        return input_response(message, input_request["method"])

    def _samples(self, input_request: Any) -> bool:
        return self._sampler is not None and self._sampler.answers(input_request)

    def _session(self) -> Session:
        if not self._context.accepts_events:
            raise cannot_provide_input()
        if self._context.session is None:
            raise InvalidError(
                "The server requires input from its caller, which needs a session. "
                "Initialize a session and repeat the call."
            )
        return self._context.session

    def _next_round(self, call: CallRequested, params: dict[str, Any], first: str) -> CallRequested:
        """Return the call of the next round, with the time limit of the first round."""
        extra = (msgspec.json.decode(call.extra) if call.extra else {}) | params
        if "requestState" not in params:
            extra.pop("requestState", None)
        call_id = self._calls.new_call_id()
        session = self._context.session
        if session is not None:
            session.in_flight[self._request.id] = call_id
        return call.model_copy(
            update={
                "call_id": call_id,
                "reply_to": self._calls.address(call_id),
                "parent_id": first,
                "deadline": time() + self._seconds,
                "extra": strict_json.dump(extra).decode(),
            }
        )


def cannot_provide_input() -> InvalidError:
    """Return the error for a client that cannot provide the input that a server requires."""
    return InvalidError(
        "The server requires input from its caller, but this client cannot provide it. Use a "
        "session, declare the capability, and accept text/event-stream."
    )
