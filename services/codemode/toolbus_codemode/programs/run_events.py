"""What is told of each program: that it began, and how it ended and what it used."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any

from toolbus_codemode.programs.budget import Purse
from toolbus_codemode.programs.nested_calls import Tally
from toolbus_codemode.sandbox.program import Ended, Program, ProgramError
from toolbus_common.access.principal import Principal
from toolbus_common.calls.event_fields import call_fields
from toolbus_common.contracts import CallAdmitted, Event, RunCompleted, RunFailed, RunStarted
from toolbus_common.observability.metrics import RUN_SECONDS, RUNS

LONGEST_REASON = 500
LONGEST_PROGRAM = 64 << 10  # characters; what is longer is not run
_OF_CONTENT = frozenset({"runtime", "syntax", "not_plain"})  # they repeat what was computed


@dataclass(slots=True)
class Run:
    """One program under way, and the events about it."""

    call: CallAdmitted
    principal: Principal
    program: Program
    purse: Purse
    tally: Tally
    say: Callable[[Event], None]
    _began: float = field(default_factory=time)

    def started(self) -> None:
        """It begins; its text is told only where its key's calls are recorded in full."""
        self.say(
            RunStarted(
                id=f"{self.call.call_id}.run.started",
                **self._about(),
                program=self.program.source[:LONGEST_PROGRAM] if self._full else "",
            )
        )

    def ended(self, ended: Ended, output_bytes: int, kept: int) -> None:
        """It came to an end of its own, or of the sandbox's."""
        RUNS.labels(ended.error.name if ended.error else "ok").inc()
        RUN_SECONDS.observe(ended.seconds)
        used = self._used(ended.seconds) | {
            "cpu_us": int(ended.cpu * 1e6),
            "output_bytes": output_bytes,
            "kept": kept,
        }
        if ended.error is None:
            self.say(RunCompleted(id=f"{self.call.call_id}.run.completed", **used))
            return
        error = ended.error
        self._failed(error.name, self._reason(error), error.line or 0, used)

    def broke_off(self, code: str, reason: str) -> None:
        """It was ended from outside: its caller left, or the service stopped."""
        RUNS.labels(code).inc()
        self._failed(code, reason, 0, self._used(time() - self._began))

    @property
    def _full(self) -> bool:
        return self.principal.content == "full"

    def _reason(self, error: ProgramError) -> str:
        """Why, in words that hold nothing of the calls' content unless that is recorded."""
        if self._full:
            return error.message
        if error.name == "tool_failed":
            return error.message.partition(":")[0]
        return "" if error.name in _OF_CONTENT else error.message

    def _failed(self, code: str, reason: str, line: int, used: dict[str, Any]) -> None:
        told = {"code": code, "reason": reason[:LONGEST_REASON], "at_line": line}
        self.say(RunFailed(id=f"{self.call.call_id}.run.failed", **told, **used))

    def _used(self, seconds: float) -> dict[str, Any]:
        return {
            **self._about(),
            "calls": self.tally.calls,
            "refused": self.tally.refused,
            "failed": self.tally.failed,
            "cost": self.purse.spent,
            "latency_us": int(seconds * 1e6),
        }

    def _about(self) -> dict[str, Any]:
        source, levels = self.program.source, dict(self._above())
        return {
            **call_fields(self.call, self.call.customer, self.call.key),
            "team": levels.get("team", ""),
            "user": levels.get("user", ""),
            "environment": self.principal.environment,
            "engine": self.program.engine,
            "program_digest": sha256(source.encode(errors="replace")).hexdigest(),
            "lines": len(source.splitlines()),
        }

    def _above(self) -> list[tuple[str, str]]:
        split = (told.partition(":") for told, _ in self.principal.levels)
        return [(kind, name) for kind, _, name in split]
