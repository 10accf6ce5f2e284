"""The call path in ingress: build a call from a request, send it, and return its result."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from time import perf_counter, time
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.contracts import (
    FOLLOW,
    IDEMPOTENCY,
    NOTHING,
    CallNotification,
    CallRequested,
    FinalReply,
    InputRequired,
    ProtocolFamily,
    TaskCreated,
)
from toolbus_common.contracts.base import trusted
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.observability.call_metrics import call_count
from toolbus_common.observability.metrics import CALL_SECONDS, CALLS
from toolbus_common.observability.tracing import bind
from toolbus_common.service.service import Service
from toolbus_ingress import protocol_versions
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.mcp import param_headers, tracing
from toolbus_ingress.mcp.error_mapping import error_response, with_requested_name
from toolbus_ingress.mcp.legacy.client_requests import PendingClientRequests
from toolbus_ingress.mcp.request_target import (
    TASKS,
    CallTarget,
    RouteTable,
    call_target,
    idempotency_key,
)
from toolbus_ingress.mcp.streaming_call import StreamingCall, cannot_provide_input
from toolbus_ingress.mcp.tasks import (
    DEFERRED_NAME,
    RESULT,
    Tasks,
    task_key,
    wants_task,
    with_error_codes,
    with_related_task,
    with_task_id,
)
from toolbus_ingress.mcp.tracing import TraceContext, trace_context_of
from toolbus_ingress.protocol_versions import META, Request
from toolbus_ingress.sampling.sampler import Sampler, Samplers
from toolbus_ingress.sessions.event_log_store import EventLogStore
from toolbus_ingress.sessions.sealed_claims import ClaimSealer, StateClaims
from toolbus_ingress.sessions.session_store import LEVELS, Session, capabilities_of
from toolbus_ingress.sessions.sse_writer import DisconnectWatch

STATE_SECONDS = 900.0  # how long a caller may take to provide requested input
_OK = call_count(CALLS.labels("ok"))
_SECONDS = CALL_SECONDS.labels("")
_LOG_LEVEL = META + "logLevel"
_OWN_META = frozenset(
    {protocol_versions.VERSION, protocol_versions.CAPABILITIES, META + "clientInfo", _LOG_LEVEL,
     "progressToken", tracing.TRACE, tracing.STATE, tracing.BAGGAGE, IDEMPOTENCY}
)  # fmt: skip
_PLAIN_PARAMS = frozenset({"name", "arguments", "_meta"})

_call_requested = trusted(CallRequested)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class CallHandler:
    """Sender of requests to servers. It returns results in the caller's protocol family."""

    def __init__(
        self,
        service: Service,
        catalogue: Catalogue,
        sealer: ClaimSealer,
        client_requests: PendingClientRequests,
        event_logs: EventLogStore,
        samplers: Samplers,
        timeout: float | None,
    ) -> None:
        self._service = service
        self._catalogue = catalogue
        self._sealer = sealer
        self.tasks = Tasks(sealer, catalogue)
        self._client_requests = client_requests
        self._event_logs = event_logs
        self._samplers = samplers
        self._timeout = timeout
        self.on_task_created: Callable[[Session, str, str], None] = lambda *_: None
        self._routes = RouteTable(catalogue)

    def answer(self, context: RequestContext, request: Request) -> Awaitable[Response | None]:
        """Return the response to a request; None if it was streamed."""
        trace = trace_context_of(request.meta, context.headers)
        bind(trace.traceparent)
        span = tracing.request_span(trace, request.method)
        return span.around(self._answer(context, request, trace))

    async def _answer(
        self, context: RequestContext, request: Request, trace: TraceContext
    ) -> Response | None:
        started = perf_counter()
        call_id = self._service.calls.new_call_id()
        target: CallTarget | None = None
        about_task = request.method in TASKS
        if about_task and request.family is ProtocolFamily.MODERN:
            protocol_versions.require_tasks(request)
        try:
            if about_task:
                stored = self.tasks.stored_result(request, context.caller)
                if stored is not None:
                    return jsonrpc.result(request.id, stored)
            target = call_target(request, context.caller, self._routes, self._sealer)
            route = target.route
            if route and route.param_headers and request.family is ProtocolFamily.MODERN:
                param_headers.check(route.param_headers, request, context.headers)
            sampler = self._samplers.find(context, request.method, target.server)
            call = self._call(context, request, target, call_id, trace, sampler)
            answer = await self._run_while_wanted(context, request, call, sampler)
        except ToolbusError as error:
            CALLS.labels(error.code).inc()
            tracing.record_failure(error)
            named = with_requested_name(error, request, target)
            answer = error_response(named, request, call_id)
        _SECONDS.observe(perf_counter() - started)
        return answer

    async def run(
        self,
        context: RequestContext,
        request: Request,
        call_id: str,
        on_notification: Callable[[CallNotification], None] | None = None,
    ) -> bytes:
        """Return the raw result of a call whose caller cannot provide input.

        Notifications are passed to `on_notification`, except from a server that samples models.
        Raises `ToolbusError`, also if the call requires input.
        """
        trace = trace_context_of(request.meta, context.headers)
        with tracing.request_span(trace, request.method):
            target = call_target(request, context.caller, self._routes, self._sealer)
            sampler = self._samplers.find(context, request.method, target.server)
            call = self._call(context, request, target, call_id, trace, sampler)
            if sampler is None:
                reply = await self._service.calls.request(call, on_notification)
            else:
                reply = await self._streaming(context, request, sampler).run(call)
            tracing.record_result(reply)
            if isinstance(reply, InputRequired | TaskCreated):
                raise InvalidError(
                    "The tool requires input from its caller, which this API cannot provide. "
                    "Call the tool over MCP."
                )
            return reply.body

    async def subscribe(self, context: RequestContext, request: Request, uri: str) -> None:
        """Subscribe at the server to updates of a resource. Raises `ToolbusError`."""
        subscription = Request(b"", "resources/subscribe", {"uri": uri}, request.family)
        target = call_target(subscription, context.caller, self._routes, self._sealer)
        call_id = self._service.calls.new_call_id()
        await self._service.calls.request_detached(
            self._call(context, subscription, target, call_id)
        )

    async def follow(self, context: RequestContext, request: Request, handle: str) -> str:
        """Subscribe to the notifications of a task at its server.

        Return the key that identifies the task in these notifications.

        Raises:
            ToolbusError: the handle is unknown, or the server does not notify about the task.

        """
        subscription = Request(b"", FOLLOW, {"taskId": handle}, request.family)
        target = call_target(subscription, context.caller, self._routes, self._sealer)
        call_id = self._service.calls.new_call_id()
        await self._service.calls.request_detached(
            self._call(context, subscription, target, call_id)
        )
        return task_key(target.server, msgspec.json.decode(target.arguments)["taskId"])

    async def cancel(self, call_id: str) -> None:
        """Publish that the result of a call, and of its model requests, is no longer needed."""
        for each in self._samplers.leave(call_id):
            await self._service.calls.cancel(each)

    # -- the call ------------------------------------------------------------------------------

    def _call(
        self,
        context: RequestContext,
        request: Request,
        target: CallTarget,
        call_id: str,
        trace: TraceContext | None = None,
        sampler: Sampler | None = None,
    ) -> CallRequested:
        meta, session, sid, now = request.meta, context.session, context.sid, time()
        trace = trace or trace_context_of(meta, context.headers)
        modern = request.family is ProtocolFamily.MODERN
        declared = protocol_versions.declared_capabilities
        capabilities = declared(meta) if modern else capabilities_of(session)
        if sampler is not None:
            capabilities = sampler.capabilities(capabilities)
        level = meta.get(_LOG_LEVEL) if modern else session and session.level
        seconds, events = self._timeout, context.accepts_events
        if seconds is None:
            route = target.route
            seconds = route.seconds if route else self._routes.seconds(target.server, target.name)
        call = _call_requested(
            call_id=call_id,
            reply_to=self._service.calls.address(call_id),
            server=target.server,
            tool=target.name,
            method=request.method,
            key_digest=context.caller.key_digest,
            family=request.family,
            deadline=now + seconds,
            traceparent=trace.traceparent,
            tracestate=trace.state,
            baggage=trace.baggage,
            progress=isinstance(meta.get("progressToken"), str | int) and events,
            capabilities=capabilities,
            log_level=level if level in LEVELS and events else "",
            # Without a level, clients with a session receive what the server logs by default.
            default_logs=session is not None and events and not level,
            extra=self._extra(context, request, target),
            restriction=context.caller.restrictions,
            run=trace.run or sid,
            idempotency_key=idempotency_key(request, context.caller),
            terms=context.caller.code_mode_options.encode() if target.server == BUILT_IN else "",
            session=sid,
            suggested_by=context.suggested_by,
            arguments=target.arguments,
        )
        tracing.describe(context, request, call, self._catalogue)
        return call

    def _extra(self, context: RequestContext, request: Request, target: CallTarget) -> str:
        """Return the members of a request other than the arguments, as raw JSON.

        The result is empty if there are no such members.
        """
        params = request.params
        if request.meta.keys() <= _OWN_META and params.keys() <= _PLAIN_PARAMS:
            return ""
        extra: dict[str, Any] = {}
        foreign = {name: value for name, value in request.meta.items() if name not in _OWN_META}
        if foreign:
            extra["_meta"] = foreign
        if wants_task(request):
            extra["task"] = params["task"]
        if "inputResponses" in params and request.method not in TASKS:
            if not isinstance(params["inputResponses"], dict):
                raise InvalidError("inputResponses must be an object.")
            extra["inputResponses"] = params["inputResponses"]
        if "requestState" in params:
            claims = self._sealer.open(params["requestState"], StateClaims)
            if (
                claims is None
                or claims.principal_id != context.caller.principal_id
                or claims.request != _digest(request.method, target)
                or claims.expires < time()
            ):
                raise InvalidError("Invalid or expired requestState. Restart the request.")
            if claims.state is not None:
                extra["requestState"] = claims.state
        return strict_json.dump(extra).decode() if extra else ""

    # -- the result ----------------------------------------------------------------------------

    async def _run_while_wanted(
        self,
        context: RequestContext,
        request: Request,
        call: CallRequested,
        sampler: Sampler | None,
    ) -> Response | None:
        """Run the call, and cancel it when its client stops waiting.

        A stateless client stops waiting when it disconnects, unless it sent an idempotency key. A
        client with a session sends a notification, whose handler finds the call in `in_flight`.
        """
        session, watch = context.session, None
        if request.family is ProtocolFamily.MODERN and not call.idempotency_key:
            watch = DisconnectWatch(context.scope, lambda: self._cancel_soon(call.call_id))
        elif session is not None:
            if request.id in session.in_flight:
                raise protocol_versions.duplicate_id(request.id)
            session.in_flight[request.id] = call.call_id
        try:
            return await self._run(context, request, call, sampler)
        finally:
            if watch is not None:
                watch.stop()
            elif session is not None:
                session.in_flight.pop(request.id, None)

    async def _run(
        self,
        context: RequestContext,
        request: Request,
        call: CallRequested,
        sampler: Sampler | None,
    ) -> Response | None:
        """Return the response, or stream it if notifications precede it."""
        session = context.session
        interactive = session is not None and (session.polls or call.capabilities != NOTHING)
        streams = interactive or call.progress or call.log_level or call.default_logs
        if sampler is None and not (context.accepts_events and streams):
            reply = await self._service.calls.request(call)
            if isinstance(reply, InputRequired) and request.family is ProtocolFamily.LEGACY:
                self._cancel_soon(call.call_id)
                raise cannot_provide_input()
            answer = jsonrpc.result(request.id, self._body(context, request, call, reply))
            _OK.count += 1
            return answer
        streaming = self._streaming(context, request, sampler)
        try:
            reply = await streaming.run(call)
            answer = jsonrpc.result(request.id, self._body(context, request, call, reply))
            _OK.count += 1
        except ToolbusError as error:
            if not streaming.started:
                raise
            CALLS.labels(error.code).inc()
            tracing.record_failure(error)
            target = CallTarget(call.server, call.tool, b"")
            named = with_requested_name(error, request, target)
            answer = error_response(named, request, call.call_id)
        return await streaming.finish(answer)

    def _streaming(
        self, context: RequestContext, request: Request, sampler: Sampler | None
    ) -> StreamingCall:
        return StreamingCall(
            self._service.calls,
            self._client_requests,
            self._event_logs,
            context,
            request,
            self._cancel_soon,
            sampler,
        )

    def _body(
        self, context: RequestContext, request: Request, call: CallRequested, reply: FinalReply
    ) -> bytes:
        """Return the raw result for the caller; the server's own state and task ids are sealed."""
        tracing.record_result(reply)
        if isinstance(reply, InputRequired):
            return self._with_sealed_state(context, call, reply.body)
        if isinstance(reply, TaskCreated):
            body, key, handle = self.tasks.created(reply.body, call)
            if context.session is not None:
                self.on_task_created(context.session, key, handle)
            return body
        if request.method == RESULT:
            return with_related_task(reply.body, request.params["taskId"])
        if request.method in TASKS:
            deferred = DEFERRED_NAME in call.arguments
            body = with_error_codes(reply.body) if deferred else reply.body
            return with_task_id(body, request.params["taskId"])
        return self.tasks.completed(reply.body, call) if wants_task(request) else reply.body

    def _with_sealed_state(
        self, context: RequestContext, call: CallRequested, body: bytes
    ) -> bytes:
        members = _members(body)
        state = members.get("requestState")
        if state is None:
            return body
        target = CallTarget(call.server, call.tool, call.arguments)
        claims = StateClaims(
            msgspec.json.decode(state), context.caller.principal_id, _digest(call.method, target),
            time() + STATE_SECONDS,
        )  # fmt: skip
        members["requestState"] = msgspec.Raw(strict_json.dump(self._sealer.close(claims)))
        return msgspec.json.encode(members)

    def _cancel_soon(self, call_id: str) -> None:
        self._service.spawn(self.cancel(call_id))


def _digest(method: str, target: CallTarget) -> str:
    """Return the digest that binds a `requestState` to one request."""
    parts = (method.encode(), target.server.encode(), target.name.encode(), target.arguments)
    return sha256(b"\0".join(parts)).hexdigest()
