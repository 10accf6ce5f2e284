"""Sampling requests of one call, answered by governed requests to the declared model."""

from collections.abc import Iterable
from functools import lru_cache
from time import time
from typing import Any

import msgspec

from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.model_grants import may_use_model
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Configuration, ModelTarget, Patterns, Sampling
from toolbus_common.contracts import ERROR, TOOLS_CALL, CallRequested, ProtocolFamily
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.model_calls import CHAT, ModelCall, model_name
from toolbus_common.errors import (
    ApprovalRejectedError,
    CallCancelledError,
    InvalidError,
    ToolbusError,
)
from toolbus_common.model_api import routing
from toolbus_common.model_api.fallbacks import first_answer
from toolbus_common.model_api.output_limit import chat_limit_field
from toolbus_common.service.service import Service
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.auth.request_scope import model_restrictions_of
from toolbus_ingress.http.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS
from toolbus_ingress.sampling.chat_request import ChatRequest, chat_request, sampling_result

METHOD = "sampling/createMessage"
REJECTED = -1  # the code that MCP names for a request that a person rejected
_METHODS = frozenset({TOOLS_CALL, "prompts/get", "resources/read"})
_MAX_FORMS = 512  # clients share a few distinct sets of capabilities
_call_requested = trusted(CallRequested)


class Sampler:
    """Answers to the sampling requests of one call, which can have several rounds.

    Each answer is a model request of the caller. It is authorized, priced and recorded by policy
    like any other; its `parent_id` is the id of the call.
    """

    def __init__(
        self,
        samplers: "Samplers",
        server: str,
        limits: Sampling,
        principal: Principal,
        restrictions: tuple[Patterns, ...],
    ) -> None:
        self._samplers = samplers
        self._server = server
        self._limits = limits
        self._principal = principal
        self._restrictions = restrictions
        self._answered = 0
        self._rounds: list[str] = []
        self._running: set[str] = set()
        self._left = False

    def capabilities(self, declared: str) -> str:
        """Return the client's capabilities, with those for the requests that are answered here."""
        return _with_sampling(declared, tools=self._limits.tools)

    def begin_round(self, call_id: str) -> None:
        """Register the id of a round, by which the whole call can be cancelled."""
        self._rounds.append(call_id)
        self._samplers.active[call_id] = self

    def close(self) -> None:
        """End sampling for the call, in all its round trips."""
        for call_id in self._rounds:
            self._samplers.active.pop(call_id, None)

    def leave(self) -> set[str]:
        """Send no further request; return the ids of the calls to cancel."""
        self._left = True
        return {*self._rounds[-1:], *self._running}

    def answers(self, input_request: Any) -> bool:
        """Return whether an entry of `inputRequests` is a sampling request."""
        return isinstance(input_request, dict) and input_request.get("method") == METHOD

    async def answer(self, input_request: Any, call: CallRequested, parent: str) -> dict[str, Any]:
        """Return the entry of `inputResponses` for a sampling request: a result, or an error.

        `parent` is the id of the call's first round. The server learns the code of an error and no
        detail of budgets or rules.

        Raises:
            CallCancelledError: the caller left.

        """
        try:
            return await self._answer(input_request, call, parent)
        except InvalidError as error:
            return _error(INVALID_PARAMS, error.reason)
        except ApprovalRejectedError:
            return _error(REJECTED, "A person rejected the sampling request; do not repeat it.")
        except ToolbusError as error:
            if self._left:
                raise CallCancelledError("The caller cancelled the call.") from error
            return _error(INTERNAL_ERROR, f"The model did not answer: {error.code}.")

    async def _answer(self, input_request: Any, call: CallRequested, parent: str) -> dict[str, Any]:
        limits = self._limits
        self._answered += 1
        if self._answered > limits.max_requests:
            raise InvalidError(
                f"The call has already sent {limits.max_requests} sampling requests, which is the "
                "limit."
            )
        params = input_request.get("params")
        if len(msgspec.json.encode(params)) > limits.max_bytes:
            raise InvalidError(
                f"The sampling request exceeds {limits.max_bytes} bytes; send less content."
            )
        request = chat_request(params, limits)
        body, target = await self._send(request, call, parent)
        return sampling_result(body, model_name(target.provider, target.model))

    async def _send(
        self, request: ChatRequest, call: CallRequested, parent: str
    ) -> tuple[bytes, ModelTarget]:
        """Send the request to one target after another. Return the first answer and its target."""
        configuration = self._samplers.directory.now.configuration
        targets = routing.targets_of(
            self._limits.model,
            self._principal,
            configuration,
            self._restrictions,
            (call.session or call.run).encode(),
        )

        async def send(target: ModelTarget, number: int) -> tuple[bytes, ModelTarget]:
            sent = self._call(request, call, parent, target, number, configuration)
            return await self._request(sent), target

        return await first_answer(targets, send, lambda: self._left)

    async def _request(self, call: CallRequested) -> bytes:
        if self._left:
            raise CallCancelledError("The caller cancelled the call.")
        self._running.add(call.call_id)
        try:
            return (await self._samplers.service.calls.request_detached(call)).body
        finally:
            self._running.discard(call.call_id)

    def _call(
        self,
        request: ChatRequest,
        call: CallRequested,
        parent: str,
        target: ModelTarget,
        number: int,
        configuration: Configuration,
    ) -> CallRequested:
        calls, provider = self._samplers.service.calls, configuration.providers[target.provider]
        model = self._limits.model
        alias = model if model in configuration.models else ""
        limit_field = chat_limit_field(serves_responses="responses" in provider.served_apis)
        call_id = calls.new_call_id()
        return _call_requested(
            call_id=call_id,
            reply_to=calls.address(call_id),
            server=target.provider,
            tool=target.model,
            method=CHAT,
            key_digest=call.key_digest,
            family=ProtocolFamily.MODERN,
            deadline=time() + provider.max_total_timeout,
            traceparent=call.traceparent,
            tracestate=call.tracestate,
            baggage=call.baggage,
            parent_id=parent,
            extra=ModelCall(
                alias,
                output=request.max_tokens,
                attempt=number,
                tools=request.tools,
                sampled_by=self._server,
            ).encode(),
            restriction=self._restrictions,
            run=call.run,
            session=call.session,
            arguments=request.encode(model, limit_field),
        )


class Samplers:
    """The samplers of the calls in progress, by the ids of their rounds."""

    def __init__(self, service: Service, directory: ConfigView) -> None:
        self.service = service
        self.directory = directory
        self.active: dict[str, Sampler] = {}

    def find(self, context: RequestContext, method: str, server: str) -> Sampler | None:
        """Return a new sampler for a call of a server; None if its requests are not answered.

        They are answered if the server is configured so, and the caller may use the model.
        """
        now = self.directory.now
        declared = now.configuration.servers.get(server)
        if declared is None or declared.sampling is None or method not in _METHODS:
            return None
        limits, principal = declared.sampling, now.principal_for(context.caller.key_digest, time())
        restrictions = model_restrictions_of(context.headers)
        if principal is None or not _may_use(principal, limits.model, restrictions):
            return None
        return Sampler(self, server, limits, principal, restrictions)

    def leave(self, call_id: str) -> Iterable[str]:
        """Return the ids to cancel when the caller of a call leaves."""
        sampler = self.active.get(call_id)
        return {call_id} if sampler is None else {call_id} | sampler.leave()


def _may_use(principal: Principal, model: str, restrictions: tuple[Patterns, ...]) -> bool:
    return may_use_model(principal, model) and all(
        granted(patterns, model) for patterns in restrictions
    )


@lru_cache(_MAX_FORMS)
def _with_sampling(declared: str, *, tools: bool) -> str:
    found = msgspec.json.decode(declared)
    capabilities = found if isinstance(found, dict) else {}
    capabilities["sampling"] = {"tools": {}} if tools else {}
    return msgspec.json.encode(capabilities).decode()


def _error(code: int, message: str) -> dict[str, Any]:
    return {"_meta": {ERROR: {"code": code, "message": message}}}
