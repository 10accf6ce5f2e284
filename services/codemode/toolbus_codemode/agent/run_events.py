"""Events of a run: started, completed or failed, with what it has used."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

from toolbus_codemode.agent.run_record import RunRecord
from toolbus_common.access.principal import Principal
from toolbus_common.calls.event_fields import call_fields
from toolbus_common.contracts import CallAdmitted, Event, RunCompleted, RunFailed, RunStarted
from toolbus_common.observability.metrics import RUN_SECONDS, RUNS

ENGINE = "agent"  # of the events of runs; programs have the name of their language
LONGEST_REASON = 500


@dataclass(slots=True)
class RunEvents:
    """Events of one request of a run. The run is the `call_id` of all of them."""

    call: CallAdmitted
    principal: Principal
    record: RunRecord
    publish: Callable[[Event], None]
    _began: float = field(default_factory=time)

    def started(self) -> None:
        """Publish the start of the run."""
        self.publish(RunStarted(id=f"{self.call.call_id}.run.started", **self._about()))

    def completed(self) -> None:
        """Publish the completion, or the failure of a run that was ended by a limit."""
        code = self.record.code
        if code:
            self.failed(code, "")
            return
        RUNS.labels("ok").inc()
        RUN_SECONDS.observe(time() - self._began)
        self.publish(RunCompleted(id=f"{self.call.call_id}.run.completed", **self._used()))

    def failed(self, code: str, reason: str) -> None:
        """Publish the failure."""
        RUNS.labels(code).inc()
        RUN_SECONDS.observe(time() - self._began)
        cause = {"code": code, "reason": reason[:LONGEST_REASON]}
        self.publish(RunFailed(id=f"{self.call.call_id}.run.failed", **cause, **self._used()))

    def _used(self) -> dict[str, Any]:
        record = self.record
        tools = [step for step in record.steps if step.kind == "tool"]
        return {
            **self._about(),
            "calls": record.turns + record.calls,
            "failed": sum(step.state != "done" for step in tools),
            "cost": record.cost,
            "latency_us": int((time() - self._began) * 1e6),
        }

    def _about(self) -> dict[str, Any]:
        levels, record = self.principal.level_names, self.record
        fields = call_fields(self.call, self.call.customer, self.call.key)
        return {
            **fields,
            "call_id": record.run,
            "parent_id": "",
            "trace_id": record.trace_id,
            "team": levels.get("team", ""),
            "user": levels.get("user", ""),
            "environment": self.principal.environment,
            "engine": ENGINE,
        }
