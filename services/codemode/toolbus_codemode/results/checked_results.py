"""Guards on the results of the built-in server, and on the responses of agent mode.

The calls of a program or a run are ordinary calls: the guards have checked their results.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from toolbus_common.config.guards.guard import Phase
from toolbus_common.contracts import CallAdmitted, CheckedCall
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.contracts.events.guards import encoded_checks
from toolbus_common.errors import GuardFailedError
from toolbus_common.guards.inspector import Inspector


def _not_loaded() -> Inspector:
    raise GuardFailedError("Code mode has not loaded its guards yet; retry.")


class CheckedResults:
    """The checks of results of calls in progress. `inspector` returns the current inspector."""

    def __init__(self) -> None:
        self.inspector: Callable[[], Inspector] = _not_loaded
        self._checks: dict[str, str] = {}

    async def result(self, call: CallAdmitted, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a tool as the caller may receive it. Raises as `body`."""
        encoded = msgspec.json.encode(result)
        body = await self.body(call, encoded)
        if body is encoded:
            return result
        changed: dict[str, Any] = msgspec.json.decode(body)
        return changed

    async def body(self, call: CallAdmitted, body: bytes) -> bytes:
        """Return the body of a reply as the caller may receive it.

        Raises:
            ToolbusError: a guard rejects it; the call was executed.

        """
        phase: Phase = "completions" if call.method == AGENT_RUN else "results"
        checked = CheckedCall(
            call_id=call.call_id,
            customer=call.customer,
            key=call.key,
            server=call.server,
            tool=call.tool,
            deadline=call.deadline,
            principal_id=call.principal_id,
            run=call.run,
        )
        found = await self.inspector().inspect(call.guards, phase, checked, body)
        self._checks[call.call_id] = encoded_checks(found.checks)
        if found.error is not None:
            found.error.data["retryable"] = False  # a repetition would execute the call again
            raise found.error
        return found.body

    def was_executed(self, call: CallAdmitted) -> bool:
        """Return whether a result of the call was checked, so that the call was executed."""
        return call.call_id in self._checks

    def taken(self, call: CallAdmitted) -> str:
        """Remove the checks of a call, and return them as events contain them."""
        return self._checks.pop(call.call_id, "")
