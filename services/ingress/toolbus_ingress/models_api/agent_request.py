"""A model request in agent mode: one call of the built-in server, which runs the loop."""

import re
from collections.abc import Mapping
from hashlib import sha256
from time import time
from types import MappingProxyType

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import CallNotification, CallRequested, ProtocolFamily
from toolbus_common.contracts.agent_runs import AGENT, AGENT_RUN, LEASE, AgentCall
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.model_calls import CHAT, MESSAGES, RESPONSES
from toolbus_common.errors import InvalidError, OutcomeUnknownError, UnavailableError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.models_api.model_call import (
    CALL_ID,
    ModelRun,
    Pairs,
    beta_of,
    cache_control_of,
)

AGENT_HEADER, RUN, RUN_ID = b"x-toolbus-agent", b"x-toolbus-run", b"x-toolbus-run-id"
_METHODS = frozenset({CHAT, RESPONSES, MESSAGES})
_RUN = re.compile(rb"[0-9a-f]{1,64}")
_OFF = frozenset({b"off", b"false", b"0"})
_call_requested = trusted(CallRequested)


def is_agent_request(method: str, headers: Headers, principal: Principal) -> bool:
    """Return whether a request runs in agent mode.

    Raises:
        InvalidError: a header is malformed, or continues a run without agent mode.

    """
    enabled = principal.own.agent is not None and method in _METHODS
    requested = headers.get(AGENT_HEADER, b"").strip().lower()
    if requested not in (b"", b"on") and requested not in _OFF:
        raise InvalidError(
            "The header 'x-toolbus-agent' has an unknown value. Send 'off' for a request without "
            "agent mode, or omit it."
        )
    wanted = requested == b"on" or RUN in headers
    if RUN in headers and requested in _OFF:
        raise InvalidError(
            "The header 'x-toolbus-run' continues a run, and 'x-toolbus-agent: off' disables agent "
            "mode. Remove one of the two headers."
        )
    if wanted and not enabled:
        raise InvalidError(
            "Agent mode is not available for this request. Use a key with 'agent', and one of "
            "/v1/chat/completions, /v1/responses and /v1/messages."
        )
    return enabled and requested not in _OFF


def resumed_run(headers: Headers) -> str:
    """Return the run that a request continues; empty for a new run. Raises `InvalidError`."""
    value = headers.get(RUN, b"").strip()
    if value and not _RUN.fullmatch(value):
        raise InvalidError(
            "The header 'x-toolbus-run' is not the id of a run. Send the value of the response "
            "header 'x-toolbus-run-id'."
        )
    return value.decode()


def full_names(names: Mapping[str, str], catalogue: Catalogue) -> dict[str, str]:
    """Return the full name of each added tool, by the name that the model receives."""
    found = {name: catalogue.names.meant(listed, "tools", "") for name, listed in names.items()}
    return {name: full_name(server, tool) for name, (server, tool) in found.items()}


class AgentAttempt:
    """The call of a run, and the headers that tell the client about it."""

    def __init__(self, call_id: str, run: str) -> None:
        self.call_id = call_id
        self.headers: Pairs = ((RUN_ID, run.encode()), (CALL_ID, call_id.encode()))

    def receive(self, notification: CallNotification) -> None:
        """Ignore a notification: codemode does not pass on how each turn used the cache."""


class AgentModelRun(ModelRun):
    """One request in agent mode. It is cancelled as soon as its client disconnects.

    `names` are the full names of the added tools, by the names that the model receives. `sent` is
    the client's body, before tools were added to it.
    """

    names: Mapping[str, str] = MappingProxyType({})
    sent: bytes = b""

    async def _body(self, _principal: Principal, sticky: bytes) -> bytes:
        """Return the body of the response; it is empty after a stream. Raises `ToolbusError`."""
        call_id = self._calls.new_call_id()
        resumed = resumed_run(self._context.headers)
        attempt = self._attempt = AgentAttempt(call_id, resumed or call_id)
        call = self._agent_call(call_id, resumed, sticky)
        try:
            return await self._send(call, attempt)
        except (OutcomeUnknownError, UnavailableError) as error:
            if "run" in error.data:
                raise
            run = resumed or call_id
            raise type(error)(
                f"{error.reason} The run is '{run}': to continue it, send the same request with "
                f"the header 'x-toolbus-run: {run}'.",
                **error.data,
            ) from error

    def _agent_call(self, call_id: str, resumed: str, sticky: bytes) -> CallRequested:
        request, trace, caller = self._request, self._trace, self._context.caller
        requested = AgentCall(
            request.method,
            request.model,
            request.stream,
            request.output,
            request.tools,
            beta_of(self._context.headers),
            self._restrictions,
            dict(self.names),
            sha256(sticky or call_id.encode()).hexdigest(),
            resumed,
            cache_control_of(self._context.headers),
            sha256(self.sent or request.body).hexdigest(),
        )
        return _call_requested(
            call_id=call_id,
            reply_to=self._calls.address(call_id),
            server=BUILT_IN,
            tool=AGENT,
            method=AGENT_RUN,
            key_digest=caller.key_digest,
            family=ProtocolFamily.MODERN,
            deadline=time() + LEASE,
            traceparent=trace.traceparent,
            tracestate=trace.state,
            extra=requested.encode(),
            restriction=caller.restrictions,
            run=call_id,
            arguments=request.body,
        )
