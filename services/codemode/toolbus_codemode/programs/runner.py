"""Runner of programs that call tools, with their limits, events and responses."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from time import time
from typing import Any
from weakref import WeakKeyDictionary

from toolbus_codemode.catalog.identifiers import RESULTS
from toolbus_codemode.catalog.namespace import Tool, ToolNamespace
from toolbus_codemode.catalog.signatures import ordered, required
from toolbus_codemode.flow.data_flow import inputs_of
from toolbus_codemode.programs.budget import RunBudget
from toolbus_codemode.programs.limits import REQUEST, Cap, Caps, caps_of
from toolbus_codemode.programs.nested_calls import NestedCalls
from toolbus_codemode.programs.program_report import ProgramReport
from toolbus_codemode.programs.response import Response, ResponseBuilder
from toolbus_codemode.programs.run_events import Run
from toolbus_codemode.results.result_store import LARGEST, Results
from toolbus_codemode.sandbox.program import Function, Limits, Namespace, Program, ProgramResult
from toolbus_codemode.sandbox.sandbox import Sandbox
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.principal import Principal
from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import InvalidError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.mcp.code_mode_options import decode_options
from toolbus_common.observability.tracing import Tracer
from toolbus_common.service.service import Service

ENGINES = ("starlark", "python")
_tracer = Tracer("codemode")
MARGIN = 1.0  # seconds of the call's time reserved for the response
_READ = Function("read", "read", ("handle", "offset", "length", "select"), 1)
_RECALL = Namespace(RESULTS, BUILT_IN, (_READ,))
_CAPPED = {"too_many_calls": "calls", "time": "seconds"}


@dataclass(slots=True)
class Programs:
    """Runner of programs on behalf of their callers; `usual` limits every program."""

    service: Service
    directory: ConfigView
    sandbox: Sandbox
    results: Results
    usual: Caps
    _named: WeakKeyDictionary[ToolNamespace, tuple[Namespace, ...]] = field(
        default_factory=WeakKeyDictionary
    )

    async def run(
        self,
        call: CallAdmitted,
        principal: Principal,
        namespace: ToolNamespace,
        arguments: dict[str, Any],
    ) -> Response:
        """Run one program and return its response.

        Raises `InvalidError` if the arguments contain no valid program, or no time is left.
        """
        caps = self.caps(call, principal)
        program = self._program(call, namespace, caps, arguments)
        nested = NestedCalls(self.service, self.directory, self.results, call, RunBudget(caps.usd))
        nested.of_run = decode_options(call.terms).run
        if call.flow:
            nested.inputs = inputs_of(program)
        run = Run(
            call, principal, program, nested.budget, nested.tally, self.service.events.publish
        )
        run.started()
        try:
            with _tracer.below("toolbus.run") as span:
                nested.trace = span.traceparent or call.traceparent
                ended = with_limit_setter(caps, await self.sandbox.run(program, nested.make))
                span.note("toolbus.engine", program.engine)
                span.note("toolbus.calls", nested.tally.calls)
                if ended.error is not None:
                    span.fail(ended.error.name)
            answer = await ResponseBuilder(self.results, call.key_digest, program.engine).answer(
                ended
            )
        except asyncio.CancelledError:
            run.cancelled("cancelled", "The caller cancelled the call, or the service stopped.")
            raise
        except Exception:
            run.cancelled("internal", "Internal error; see the log of codemode for this call id.")
            raise
        run.ended(ended, answer.output_bytes, answer.kept)
        budget = nested.budget
        return replace(answer, report=ProgramReport(budget.spent + budget.held, nested.by_tool))

    def caps(self, call: CallAdmitted, principal: Principal) -> Caps:
        """Return the limits of a program for this call."""
        return caps_of(principal.levels, self.usual).within(REQUEST, decode_options(call.terms))

    def needed_until(self, call: CallAdmitted, principal: Principal) -> float:
        """Return the Unix time at which the call of a program ends at the latest."""
        return time() + _maximum(self.caps(call, principal).seconds) + 2 * MARGIN

    def _program(
        self, call: CallAdmitted, namespace: ToolNamespace, caps: Caps, arguments: dict[str, Any]
    ) -> Program:
        source, engine = arguments.get("code"), arguments.get("language", "starlark")
        if not isinstance(source, str):
            raise InvalidError("`code` is missing; it must be the text of a program.")
        if engine not in ENGINES:
            raise InvalidError(f"`language` must be one of {', '.join(ENGINES)}.")
        deadline = min(_maximum(caps.seconds), call.deadline - time() - MARGIN)
        if deadline <= 0:
            raise InvalidError("The call's deadline leaves no time for a program. Call again.")
        limits = Limits(deadline=deadline, calls=int(_maximum(caps.calls)), output=LARGEST)
        recalling = (_RECALL,) if RESULTS in source else ()
        return Program(source, engine, (*self._namespaces(namespace), *recalling), limits)

    def _namespaces(self, namespace: ToolNamespace) -> tuple[Namespace, ...]:
        """Return the namespaces that programs may use.

        The result is cached, because there may be thousands of tools.
        """
        found = self._named.get(namespace)
        if found is None:
            found = self._named[namespace] = tuple(_namespaces(namespace))
        return found


def default_limits(seconds: float, calls: int) -> Caps:
    """Return the limits that the gateway sets for every program."""
    return Caps(calls=Cap(calls, "the gateway"), seconds=Cap(seconds, "the gateway"))


def with_limit_setter(caps: Caps, ended: ProgramResult) -> ProgramResult:
    """Return the result; the error of an exceeded limit names the level that sets the limit."""
    error = ended.error
    cap = getattr(caps, _CAPPED.get(error.name, ""), None) if error else None
    if error is None or cap is None:
        return ended
    limit = f"{cap.by} allows a program {cap.maximum:g} {_CAPPED[error.name]}."
    hint = f"{error.hint} {limit[0].upper()}{limit[1:]}"
    return replace(ended, error=replace(error, hint=hint))


def _maximum(cap: Cap | None) -> float:
    return cap.maximum if cap is not None else 0


def _namespaces(namespace: ToolNamespace) -> Iterator[Namespace]:
    for space, tools in namespace.spaces.items():
        functions = tuple(map(_function, tools.values()))
        yield Namespace(space, next(iter(tools.values())).server, functions)


def _function(tool: Tool) -> Function:
    needed = required(tool.schema)
    parameters = tuple(ordered(tool.schema))
    return Function(tool.function, tool.name, parameters, len(needed.intersection(parameters)))
