"""Nested calls of a program: each is authorized, priced and recorded like any call."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec

from toolbus_codemode.programs.budget import RunBudget
from toolbus_codemode.programs.error_hints import LATER, NEEDS_INPUT, failure_of
from toolbus_codemode.programs.value_conversion import outcome_of
from toolbus_codemode.results import large_result_reader
from toolbus_codemode.results.result_store import Results
from toolbus_codemode.sandbox.program import Failure, ToolCall, ToolOutcome
from toolbus_codemode.sandbox.protocol import IDEMPOTENCY
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.pricing import Cost, charged, cost_of
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.calls.idempotency_key import validated_key
from toolbus_common.config import Configuration
from toolbus_common.config.servers.timeouts import deadline_of
from toolbus_common.contracts import (
    TOOLS_CALL,
    CallAdmitted,
    CallRequested,
    CallResult,
    FinalReply,
    InputRequired,
    ProtocolFamily,
)
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.flow import FlowInputs, encode
from toolbus_common.errors import InvalidError, RefusedError, ToolbusError, UnavailableError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.mcp.code_mode_options import RunTerms
from toolbus_common.mcp.result_uris import Handle
from toolbus_common.observability.trace_context import child_of
from toolbus_common.observability.tracing import CLIENT, Tracer
from toolbus_common.service.service import Service

_tracer = Tracer("codemode")
_call_requested = trusted(CallRequested)
RESOURCES_READ = "resources/read"


@dataclass(slots=True)
class Tally:
    """Counts of a program's calls: all, denied by policy, failed."""

    calls: int = 0
    denied: int = 0
    failed: int = 0


@dataclass(slots=True)
class NestedCalls:
    """Caller of tools for one program.

    `of_run` has the limits of the run of agent mode that the program belongs to. `by_tool` counts
    the calls by full name. `inputs` are the tools whose results can reach each tool; None if they
    are not known.
    """

    service: Service
    directory: ConfigView
    results: Results
    outer: CallAdmitted
    budget: RunBudget
    trace: str = ""  # parent span of the calls
    tally: Tally = field(default_factory=Tally)
    of_run: RunTerms | None = None
    by_tool: dict[str, int] = field(default_factory=dict)
    inputs: Mapping[str, tuple[str, ...]] | None = None
    _priced: Configuration | None = None
    _costs: dict[str, Cost] = field(default_factory=dict)

    async def make(self, wanted: ToolCall) -> ToolOutcome:
        """Make one call and return its value or failure; the program receives both."""
        if wanted.server == BUILT_IN:
            return await self._result(wanted.arguments)
        name = full_name(wanted.server, wanted.tool)
        if (refused := self._beyond_run(name)) is not None:
            return ToolOutcome(failure=refused)
        self.tally.calls += 1
        self.by_tool[name] = self.by_tool.get(name, 0) + 1
        declared = self.directory.now.configuration
        cost = self._cost(declared, name)
        amount = charge = self.budget.hold(cost.reserved)
        try:
            reply = await self._call_tool(wanted, self.budget.limit_of(amount))
            # If the configuration changed, the price is unknown: the whole reservation is spent.
            if declared is self.directory.now.configuration:
                charge = min(amount, _charge(cost, reply))
            outcome = _outcome(reply)
            self.tally.failed += outcome.failure is not None
        except ToolbusError as error:
            if isinstance(error, RefusedError | UnavailableError | InvalidError):
                charge = 0  # not dispatched
            self.tally.denied += isinstance(error, RefusedError)
            self.tally.failed += not isinstance(error, RefusedError)
            return ToolOutcome(failure=failure_of(error, self.budget.cap))
        finally:
            self.budget.settle(amount, charge)
        return outcome

    def _beyond_run(self, name: str) -> Failure | None:
        """Return the failure of a call that exceeds `calls_per_tool` of its run; else None."""
        run = self.of_run
        if run is None or run.used.get(name, 0) + self.by_tool.get(name, 0) < run.calls_per_tool:
            return None
        return Failure(
            "too_many_calls",
            f"The run allows {run.calls_per_tool} calls of '{name}' ('agent.calls_per_tool' of the "
            "key). Return the results so far.",
        )

    async def _result(self, arguments: dict[str, Any]) -> ToolOutcome:
        """Read the stored result of an earlier program, or a large result of a tool."""
        uri = large_result_reader.uri_in(arguments.get("handle"))
        if uri is None:
            return await self.results.recalled(self.outer.key_digest, arguments)
        try:
            return await large_result_reader.read(self._piece, uri, arguments)
        except ToolbusError as error:
            return ToolOutcome(failure=failure_of(error))

    async def _piece(self, handle: Handle, uri: str) -> FinalReply:
        trace = child_of(self.trace or self.outer.traceparent)
        wanted = ToolCall(handle.server, uri, {})
        return await self._await_reply(self._call(wanted, {}, "", None, trace, RESOURCES_READ))

    def _cost(self, declared: Configuration, name: str) -> Cost:
        """Return a tool's price, cached until the configuration changes."""
        if self._priced is not declared:
            self._priced, self._costs = declared, {}
        if name not in self._costs:
            self._costs[name] = cost_of(name, declared.prices)
        return self._costs[name]

    async def _call_tool(self, wanted: ToolCall, max_charge: int | None) -> FinalReply:
        arguments = {**wanted.arguments}
        key = validated_key(arguments.pop(IDEMPOTENCY, None))
        name = full_name(wanted.server, wanted.tool)
        with _tracer.span(f"{TOOLS_CALL} {name}", self.trace, CLIENT) as span:
            span.note("mcp.method.name", TOOLS_CALL)
            span.note("gen_ai.operation.name", "execute_tool")
            span.note("gen_ai.tool.name", name)
            trace = span.traceparent or child_of(self.trace or self.outer.traceparent)
            return await self._await_reply(self._call(wanted, arguments, key, max_charge, trace))

    def _call(
        self,
        wanted: ToolCall,
        arguments: dict[str, Any],
        key: str,
        max_charge: int | None,
        trace: str,
        method: str = TOOLS_CALL,
    ) -> CallRequested:
        call_id = self.service.calls.new_call_id()
        declared = self.directory.now.configuration.servers
        return _call_requested(
            call_id=call_id,
            reply_to=self.service.calls.address(call_id),
            server=wanted.server,
            tool=wanted.tool,
            key_digest=self.outer.key_digest,
            family=ProtocolFamily.MODERN,
            caller_family=self.outer.caller_family or self.outer.family,
            deadline=min(
                self.outer.deadline, deadline_of(declared.get(wanted.server), wanted.tool, time())
            ),
            traceparent=trace,
            method=method,
            tracestate=self.outer.tracestate,
            baggage=self.outer.baggage,
            parent_id=self.outer.call_id,
            restriction=self.outer.restriction,
            max_charge=max_charge,
            idempotency_key=key,
            session=self.outer.session,
            flow=self._flow(wanted),
            arguments=msgspec.json.encode(arguments),
        )

    def _flow(self, wanted: ToolCall) -> str:
        """Return the inputs of a call, with the sealed start of the program that policy issued."""
        outer, known = self.outer, self.inputs or {}
        if not outer.flow:
            return ""
        inputs = known.get(full_name(wanted.server, wanted.tool))
        return encode(FlowInputs(outer.flow, outer.call_id, inputs)).decode()

    async def _await_reply(self, call: CallRequested) -> FinalReply:
        try:
            return await self.service.calls.request_detached(call)
        except asyncio.CancelledError:  # the program ended first
            self.service.spawn(self.service.calls.cancel(call.call_id))
            raise


def _outcome(reply: FinalReply) -> ToolOutcome:
    if isinstance(reply, CallResult):
        return outcome_of(reply.body)
    message = NEEDS_INPUT if isinstance(reply, InputRequired) else LATER
    return ToolOutcome(failure=Failure("input_required", message))


def _charge(cost: Cost, reply: FinalReply) -> int:
    """Return the charge of a reply; executor computes it in the same way."""
    if isinstance(reply, InputRequired):
        return 0
    if not isinstance(reply, CallResult):
        return cost.reserved
    return charged(cost.reserved, cost.parts, len(reply.body))
