"""Events of a program run: started, completed or failed, with the resource use."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any

from toolbus_codemode.programs.budget import RunBudget
from toolbus_codemode.programs.nested_calls import Tally
from toolbus_codemode.sandbox.program import Program, ProgramError, ProgramResult
from toolbus_common.access.principal import Principal
from toolbus_common.calls.event_fields import call_fields
from toolbus_common.contracts import CallAdmitted, Event, RunCompleted, RunFailed, RunStarted
from toolbus_common.observability.metrics import RUN_SECONDS, RUNS

LONGEST_REASON = 500
LONGEST_PROGRAM = 64 << 10  # characters; longer programs are rejected
_OF_CONTENT = frozenset(
    {"runtime", "syntax", "not_plain"}
)  # their messages contain values that the program computed


@dataclass(slots=True)
class Run:
    """Events of one running program."""

    call: CallAdmitted
    principal: Principal
    program: Program
    budget: RunBudget
    tally: Tally
    publish: Callable[[Event], None]
    _began: float = field(default_factory=time)

    def started(self) -> None:
        """Publish the start; the event has the source only if the key's content is `full`."""
        self.publish(
            RunStarted(
                id=f"{self.call.call_id}.run.started",
                **self._about(),
                program=self.program.source[:LONGEST_PROGRAM] if self._full else "",
            )
        )

    def ended(self, ended: ProgramResult, output_bytes: int, stored: int) -> None:
        """Publish the completion or failure of a program that was not cancelled."""
        RUNS.labels(ended.error.name if ended.error else "ok").inc()
        RUN_SECONDS.observe(ended.seconds)
        used = self._used(ended.seconds) | {
            "cpu_us": int(ended.cpu * 1e6),
            "output_bytes": output_bytes,
            "stored": stored,
        }
        if ended.error is None:
            self.publish(RunCompleted(id=f"{self.call.call_id}.run.completed", **used))
            return
        error = ended.error
        self._failed(error.name, self._reason(error), error.line or 0, used)

    def cancelled(self, code: str, reason: str) -> None:
        """Publish the failure of a program that was cancelled."""
        RUNS.labels(code).inc()
        self._failed(code, reason, 0, self._used(time() - self._began))

    @property
    def _full(self) -> bool:
        return self.principal.content == "full"

    def _reason(self, error: ProgramError) -> str:
        """Return the reason; content of calls is omitted unless the key's content is `full`."""
        if self._full:
            return error.message
        if error.name == "tool_failed":
            return error.message.partition(":")[0]
        return "" if error.name in _OF_CONTENT else error.message

    def _failed(self, code: str, reason: str, line: int, used: dict[str, Any]) -> None:
        cause = {"code": code, "reason": reason[:LONGEST_REASON], "at_line": line}
        self.publish(RunFailed(id=f"{self.call.call_id}.run.failed", **cause, **used))

    def _used(self, seconds: float) -> dict[str, Any]:
        return {
            **self._about(),
            "calls": self.tally.calls,
            "denied": self.tally.denied,
            "failed": self.tally.failed,
            "cost": self.budget.spent,
            "latency_us": int(seconds * 1e6),
        }

    def _about(self) -> dict[str, Any]:
        source, levels = self.program.source, self.principal.level_names
        return {
            **call_fields(self.call, self.call.customer, self.call.key),
            "team": levels.get("team", ""),
            "user": levels.get("user", ""),
            "environment": self.principal.environment,
            "engine": self.program.engine,
            "program_digest": sha256(source.encode(errors="replace")).hexdigest(),
            "lines": len(source.splitlines()),
        }
