"""Programs that call tools: run within their caps, told as events, answered within bounds."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from time import time
from typing import Any
from weakref import WeakKeyDictionary

from toolbus_codemode.catalog.identifiers import RESULTS
from toolbus_codemode.catalog.namespace import Shelf, Tool
from toolbus_codemode.catalog.signatures import ordered, required
from toolbus_codemode.programs.budget import Purse
from toolbus_codemode.programs.limits import REQUEST, Cap, Caps, caps_of
from toolbus_codemode.programs.nested_calls import Inner
from toolbus_codemode.programs.response import Answer, Answers
from toolbus_codemode.programs.run_events import Run
from toolbus_codemode.results.result_store import LARGEST, Results
from toolbus_codemode.sandbox.program import Ended, Function, Limits, Namespace, Program
from toolbus_codemode.sandbox.sandbox import Sandbox
from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.access.principal import Principal
from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import InvalidError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.mcp.code_mode_options import decode_options
from toolbus_common.observability.tracing import Tracer
from toolbus_common.service.service import Service

ENGINES = ("starlark", "python")
_tracer = Tracer("codemode")
MARGIN = 1.0  # seconds kept of the caller's time, to tell how a program ended
_READ = Function("read", "read", ("handle", "offset", "length", "select"), 1)
_RECALL = Namespace(RESULTS, BUILT_IN, (_READ,))
_CAPPED = {"too_many_calls": "calls", "time": "seconds"}


@dataclass(slots=True)
class Programs:
    """Runs programs in the name of whoever sent them. `usual` bounds every one of them."""

    service: Service
    directory: ConfigProjection
    sandbox: Sandbox
    results: Results
    usual: Caps
    _named: WeakKeyDictionary[Shelf, tuple[Namespace, ...]] = field(
        default_factory=WeakKeyDictionary
    )

    async def run(
        self, call: CallAdmitted, principal: Principal, shelf: Shelf, arguments: dict[str, Any]
    ) -> Answer:
        """Run one program. Raises `InvalidError` for arguments that hold none."""
        caps = self.caps(call, principal)
        program = self._program(call, shelf, caps, arguments)
        inner = Inner(self.service, self.directory, self.results, call, Purse(caps.usd))
        run = Run(call, principal, program, inner.purse, inner.tally, self.service.events.publish)
        run.started()
        try:
            with _tracer.below("toolbus.run") as span:
                inner.trace = span.traceparent or call.traceparent
                ended = told_by(caps, await self.sandbox.run(program, inner.make))
                span.note("toolbus.engine", program.engine)
                span.note("toolbus.calls", inner.tally.calls)
                if ended.error is not None:
                    span.fail(ended.error.name)
            answer = await Answers(self.results, call.key_digest, program.engine).answer(ended)
        except asyncio.CancelledError:
            run.broke_off("cancelled", "Its caller left, or the service stopped.")
            raise
        except Exception:
            run.broke_off("internal", "Something failed inside; the log of codemode says what.")
            raise
        run.ended(ended, answer.output_bytes, answer.kept)
        return answer

    def caps(self, call: CallAdmitted, principal: Principal) -> Caps:
        """Return what the program that a call carries may use."""
        return caps_of(principal.levels, self.usual).within(REQUEST, decode_options(call.terms))

    def needed_until(self, call: CallAdmitted, principal: Principal) -> float:
        """Return the deadline that leaves a program its time, in seconds since the epoch."""
        return time() + _most(self.caps(call, principal).seconds) + 2 * MARGIN

    def _program(
        self, call: CallAdmitted, shelf: Shelf, caps: Caps, arguments: dict[str, Any]
    ) -> Program:
        source, engine = arguments.get("code"), arguments.get("language", "starlark")
        if not isinstance(source, str):
            raise InvalidError("code must be given: the text of a program.")
        if engine not in ENGINES:
            raise InvalidError(f"language must be one of {', '.join(ENGINES)}.")
        deadline = min(_most(caps.seconds), call.deadline - time() - MARGIN)
        if deadline <= 0:
            raise InvalidError("The call's deadline leaves no time for a program.")
        limits = Limits(deadline=deadline, calls=int(_most(caps.calls)), output=LARGEST)
        recalling = (_RECALL,) if RESULTS in source else ()
        return Program(source, engine, (*self._namespaces(shelf), *recalling), limits)

    def _namespaces(self, shelf: Shelf) -> tuple[Namespace, ...]:
        """What programs may name; worked out once for a shelf of maybe thousands of tools."""
        found = self._named.get(shelf)
        if found is None:
            found = self._named[shelf] = tuple(_namespaces(shelf))
        return found


def usual_caps(seconds: float, calls: int) -> Caps:
    """What the gateway allows any program."""
    return Caps(calls=Cap(calls, "the gateway"), seconds=Cap(seconds, "the gateway"))


def told_by(caps: Caps, ended: Ended) -> Ended:
    """The same end; where a cap was met, with who set it."""
    error = ended.error
    cap = getattr(caps, _CAPPED.get(error.name, ""), None) if error else None
    if error is None or cap is None:
        return ended
    told = f"{cap.by} allows a program {cap.most:g} {_CAPPED[error.name]}."
    hint = f"{error.hint} {told[0].upper()}{told[1:]}"
    return replace(ended, error=replace(error, hint=hint))


def _most(cap: Cap | None) -> float:
    return cap.most if cap is not None else 0


def _namespaces(shelf: Shelf) -> Iterator[Namespace]:
    for space, tools in shelf.spaces.items():
        functions = tuple(map(_function, tools.values()))
        yield Namespace(space, next(iter(tools.values())).server, functions)


def _function(tool: Tool) -> Function:
    needed = required(tool.schema)
    parameters = tuple(ordered(tool.schema))
    return Function(tool.function, tool.name, parameters, len(needed.intersection(parameters)))
