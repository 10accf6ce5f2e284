"""Requests that a server answers: onto the bus, and back in the form of the caller's family."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from time import perf_counter, time
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.access.anonymous import KEY_DIGEST as ANONYMOUS
from toolbus_common.calls.idempotency_key import checked_key
from toolbus_common.contracts import (
    FOLLOW,
    IDEMPOTENCY,
    NOTHING,
    TOOLS_CALL,
    CallCancelled,
    CallRequested,
    FinalReply,
    InputRequired,
    ProtocolFamily,
    TaskCreated,
)
from toolbus_common.contracts.base import trusted
from toolbus_common.errors import InvalidError, ToolbusError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.observability.metrics import CALL_SECONDS, CALLS
from toolbus_common.observability.tracing import bind
from toolbus_common.service.service import Service
from toolbus_ingress import protocol_versions
from toolbus_ingress.auth.request_context import Visit
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.mcp import param_headers, tracing
from toolbus_ingress.mcp.error_mapping import as_asked, told
from toolbus_ingress.mcp.legacy.client_requests import Questions
from toolbus_ingress.mcp.request_target import TASKS, Subject, subject_of
from toolbus_ingress.mcp.streaming_call import Conversation
from toolbus_ingress.mcp.tasks import (
    DEFERRED_NAME,
    RESULT,
    Tasks,
    related,
    renamed,
    task_key,
    wants_task,
    with_codes,
)
from toolbus_ingress.mcp.tracing import Trail, trail_of
from toolbus_ingress.protocol_versions import META, Request
from toolbus_ingress.sessions.event_log_store import Shelf
from toolbus_ingress.sessions.sealed_claims import Seal, StateClaims
from toolbus_ingress.sessions.session_store import LEVELS, Session, capabilities_of
from toolbus_ingress.sessions.sse_writer import Presence

STATE_SECONDS = 900.0  # how long a caller may take to answer what a server asked
LARGEST_CAPABILITIES = 8 * 1024
_OK = CALLS.labels("ok")
_LOG_LEVEL = META + "logLevel"
_OWN_META = frozenset(
    {protocol_versions.VERSION, protocol_versions.CAPABILITIES, META + "clientInfo", _LOG_LEVEL,
     "progressToken", tracing.TRACE, tracing.STATE, tracing.BAGGAGE, IDEMPOTENCY}
)  # fmt: skip

_requested = trusted(CallRequested)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Relay:
    """The call path at the edge."""

    def __init__(
        self,
        service: Service,
        catalogue: Catalogue,
        seal: Seal,
        questions: Questions,
        shelf: Shelf,
        timeout: float | None,
    ) -> None:
        self._service = service
        self._catalogue = catalogue
        self._seal = seal
        self.tasks = Tasks(seal, catalogue)
        self._questions = questions
        self._shelf = shelf
        self._timeout = timeout
        self.on_begun: Callable[[Session, str, str], None] = lambda _session, _task, _handle: None
        self._wanted: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
        catalogue.on_change.append(self._wanted.clear)

    def answer(self, visit: Visit, request: Request) -> Awaitable[Response | None]:
        """Answer a request; None when the answer was streamed."""
        way = trail_of(request.meta, visit.headers)
        bind(way.traceparent)
        return tracing.entrance(way, request.method).around(self._answered(visit, request, way))

    async def _answered(self, visit: Visit, request: Request, way: Trail) -> Response | None:
        began = perf_counter()
        call_id = self._service.calls.new_call_id()
        subject: Subject | None = None
        if request.method in TASKS and request.family is ProtocolFamily.MODERN:
            protocol_versions.require_tasks(request)
        try:
            kept = self.tasks.kept(request, visit.caller) if request.method in TASKS else None
            if kept is not None:
                return jsonrpc.result(request.id, kept)
            subject = subject_of(request, visit.caller, self._catalogue, self._seal)
            if request.method == TOOLS_CALL and request.family is ProtocolFamily.MODERN:
                self._check_headers(visit, request, subject)
            call = self._call(visit, request, subject, call_id, way)
            answer = await self._converse(visit, request, call)
            _OK.inc()
        except ToolbusError as error:
            CALLS.labels(error.code).inc()
            tracing.failed(error)
            answer = told(as_asked(error, request, subject), request, call_id)
        CALL_SECONDS.observe(perf_counter() - began)
        return answer

    async def run(self, visit: Visit, request: Request, call_id: str) -> bytes:
        """The result of a call whose caller can be asked nothing. Raises `ToolbusError`."""
        way = trail_of(request.meta, visit.headers)
        with tracing.entrance(way, request.method):
            subject = subject_of(request, visit.caller, self._catalogue, self._seal)
            call = self._call(visit, request, subject, call_id, way)
            ending = await self._service.calls.ask(call)
            tracing.ended(ending)
            if isinstance(ending, InputRequired | TaskCreated):
                raise InvalidError("This tool asks its caller something; call it over MCP.")
            return ending.body

    async def subscribe(self, visit: Visit, request: Request, uri: str) -> None:
        """Have the server watch a resource. Raises `ToolbusError`."""
        asked = Request(b"", "resources/subscribe", {"uri": uri}, request.family)
        subject = subject_of(asked, visit.caller, self._catalogue, self._seal)
        call_id = self._service.calls.new_call_id()
        await self._service.calls.ask(self._call(visit, asked, subject, call_id))

    async def follow(self, visit: Visit, request: Request, handle: str) -> str:
        """Have a server tell of a task; what its news call it. Raises `ToolbusError`."""
        asked = Request(b"", FOLLOW, {"taskId": handle}, request.family)
        subject = subject_of(asked, visit.caller, self._catalogue, self._seal)
        call_id = self._service.calls.new_call_id()
        await self._service.calls.ask(self._call(visit, asked, subject, call_id))
        return task_key(subject.server, msgspec.json.decode(subject.arguments)["taskId"])

    async def cancel(self, call_id: str) -> None:
        """Nobody waits for this call any longer."""
        cancelled = CallCancelled(call_id=call_id)
        await self._service.bus.publish(cancelled.subject, cancelled.encode())

    # -- there -------------------------------------------------------------------------------

    def _call(
        self,
        visit: Visit,
        request: Request,
        subject: Subject,
        call_id: str,
        way: Trail | None = None,
    ) -> CallRequested:
        meta = request.meta
        way = way or trail_of(meta, visit.headers)
        modern = request.family is ProtocolFamily.MODERN
        level = meta.get(_LOG_LEVEL) if modern else visit.session and visit.session.level
        call = _requested(
            call_id=call_id,
            reply_to=self._service.calls.address(call_id),
            server=subject.server,
            tool=subject.name,
            method=request.method,
            key_digest=visit.caller.key_digest,
            family=request.family,
            deadline=self._deadline(subject),
            traceparent=way.traceparent,
            tracestate=way.state,
            baggage=way.baggage,
            progress=isinstance(meta.get("progressToken"), str | int) and visit.takes_events,
            capabilities=_declared(meta) if modern else capabilities_of(visit.session),
            log_level=level if level in LEVELS and visit.takes_events else "",
            default_logs=_takes_logs(visit) and not level,
            extra=self._extra(visit, request, subject),
            restriction=visit.caller.restriction,
            run=way.run or (visit.session.sid if visit.session is not None else ""),
            idempotency_key=_key_of(request.method, meta, visit.caller.key_digest),
            terms=visit.caller.terms.encode() if subject.server == BUILT_IN else "",
            session=visit.session.sid if visit.session is not None else "",
            arguments=subject.arguments,
        )
        tracing.describe(visit, request, call, self._catalogue)
        return call

    def _deadline(self, subject: Subject) -> float:
        now = time()
        if self._timeout is not None:
            return now + self._timeout
        return self._catalogue.deadline(subject.server, subject.name, now)

    def _extra(self, visit: Visit, request: Request, subject: Subject) -> str:
        """What travels beside the arguments, as raw JSON; empty when nothing does."""
        params = request.params
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
            state = self._opened(params["requestState"], visit, request, subject)
            if state is not None:
                extra["requestState"] = state
        return strict_json.dump(extra).decode() if extra else ""

    def _opened(self, sealed: Any, visit: Visit, request: Request, subject: Subject) -> str | None:
        claims = self._seal.open(sealed, StateClaims)
        if (
            claims is None
            or claims.principal_id != visit.caller.principal_id
            or claims.request != _digest(request.method, subject)
            or claims.expires < time()
        ):
            raise InvalidError("Invalid or expired requestState; begin the request anew.")
        return claims.state

    def _check_headers(self, visit: Visit, request: Request, subject: Subject) -> None:
        key = subject.server, subject.name
        wanted = self._wanted.get(key)
        if wanted is None:
            definition = self._catalogue.definition(*key) or {}
            wanted = self._wanted[key] = param_headers.declared(definition.get("inputSchema"))
        if wanted:
            arguments = request.params.get("arguments", {})
            fault = param_headers.mismatch(wanted, arguments, visit.headers)
            if fault:
                raise protocol_versions.mismatched(fault, request.id)

    # -- and back ----------------------------------------------------------------------------

    async def _converse(
        self, visit: Visit, request: Request, call: CallRequested
    ) -> Response | None:
        session = visit.session
        if request.family is ProtocolFamily.MODERN and not call.idempotency_key:
            presence = Presence(visit.scope, self._leaving(call.call_id))
            try:
                return await self._tell_all(visit, request, call)
            finally:
                presence.settled()
        if session is None:
            return await self._tell_all(visit, request, call)
        if request.id in session.in_flight:
            raise protocol_versions.repeated(request.id)
        session.in_flight[request.id] = call.call_id
        try:
            return await self._tell_all(visit, request, call)
        finally:
            session.in_flight.pop(request.id, None)

    async def _tell_all(
        self, visit: Visit, request: Request, call: CallRequested
    ) -> Response | None:
        session = visit.session
        talks = session is not None and (session.polls or call.capabilities != NOTHING)
        if not visit.takes_events or not (
            talks or call.progress or call.log_level or call.default_logs
        ):
            ending = await self._service.calls.ask(call)
            if isinstance(ending, InputRequired) and request.family is ProtocolFamily.LEGACY:
                self._give_up(call.call_id)
                raise InvalidError(
                    "The server asks its caller something, which needs a session, a declared "
                    "capability, and an Accept of text/event-stream."
                )
            return jsonrpc.result(request.id, self._body(visit, request, call, ending))
        conversation = Conversation(
            self._service.calls, self._questions, self._shelf, visit, request, self._give_up
        )
        try:
            ending = await conversation.hold(call)
            answer = jsonrpc.result(request.id, self._body(visit, request, call, ending))
        except ToolbusError as error:
            if not conversation.begun:
                raise
            CALLS.labels(error.code).inc()
            tracing.failed(error)
            asked = as_asked(error, request, Subject(call.server, call.tool, b""))
            answer = told(asked, request, call.call_id)
        return await conversation.end(answer)

    def _body(
        self, visit: Visit, request: Request, call: CallRequested, ending: FinalReply
    ) -> bytes:
        """The result as the caller may see it: what is the server's own is sealed."""
        tracing.ended(ending)
        if isinstance(ending, InputRequired):
            return self._sealed_state(visit, call, ending.body)
        if isinstance(ending, TaskCreated):
            return self._begun(visit, call, ending.body)
        if request.method == RESULT:
            return related(ending.body, request.params["taskId"])
        if request.method in TASKS:
            body = with_codes(ending.body) if DEFERRED_NAME in call.arguments else ending.body
            return renamed(body, request.params["taskId"])
        return self.tasks.done(ending.body, call) if wants_task(request) else ending.body

    def _begun(self, visit: Visit, call: CallRequested, body: bytes) -> bytes:
        """A task under its caller's handle, of which its session's streams are told."""
        told, key, handle = self.tasks.begun(body, call)
        if visit.session is not None:
            self.on_begun(visit.session, key, handle)
        return told

    def _sealed_state(self, visit: Visit, call: CallRequested, body: bytes) -> bytes:
        members = _members(body)
        state = members.get("requestState")
        if state is None:
            return body
        subject = Subject(call.server, call.tool, call.arguments)
        claims = StateClaims(
            msgspec.json.decode(state), visit.caller.principal_id, _digest(call.method, subject),
            time() + STATE_SECONDS,
        )  # fmt: skip
        members["requestState"] = msgspec.Raw(strict_json.dump(self._seal.close(claims)))
        return msgspec.json.encode(members)

    def _give_up(self, call_id: str) -> None:
        self._service.spawn(self.cancel(call_id))

    def _leaving(self, call_id: str) -> Callable[[], None]:
        return lambda: self._give_up(call_id)


def _key_of(method: str, meta: dict[str, Any], key_digest: str) -> str:
    """The idempotency key of a tool's call; what else may be repeated has none."""
    key = checked_key(meta.get(IDEMPOTENCY)) if method == TOOLS_CALL else ""
    if key and key_digest == ANONYMOUS:
        raise InvalidError(
            "An idempotency key belongs to a caller, and without a key or a session nobody knows "
            "which one this is. Send a key, begin a session, or leave the idempotency key out."
        )
    return key


def _takes_logs(visit: Visit) -> bool:
    """Whether the caller takes log messages it did not ask for: clients with a session do."""
    return visit.session is not None and visit.takes_events


def _declared(meta: dict[str, Any]) -> str:
    capabilities = meta.get(protocol_versions.CAPABILITIES)
    if not capabilities:
        return NOTHING
    raw = strict_json.dump(capabilities)
    if len(raw) > LARGEST_CAPABILITIES:
        raise InvalidError(f"The client's capabilities exceed {LARGEST_CAPABILITIES} bytes.")
    return raw.decode()


def _digest(method: str, subject: Subject) -> str:
    """What a state is bound to: another request cannot use it."""
    about = (method.encode(), subject.server.encode(), subject.name.encode(), subject.arguments)
    return sha256(b"\0".join(about)).hexdigest()
