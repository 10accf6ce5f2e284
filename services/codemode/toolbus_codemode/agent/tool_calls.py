"""Tool calls of a run: each is authorized, priced and recorded like any call, and runs once."""

import asyncio
import dataclasses
import re
from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec
from msgspec.structs import replace

from toolbus_codemode.agent.dialects.base import Result, Suggested
from toolbus_codemode.programs.budget import RunBudget
from toolbus_codemode.programs.program_report import report_of
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.pricing import charged, cost_of
from toolbus_common.access.tool_patterns import split_name
from toolbus_common.config import MICRO
from toolbus_common.config.servers.timeouts import deadline_of
from toolbus_common.contracts import (
    CallAdmitted,
    CallRequested,
    CallResult,
    FinalReply,
    InputRequired,
    ProtocolFamily,
)
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.flow import FlowInputs, encode
from toolbus_common.errors import (
    ApprovalRequiredError,
    CallInProgressError,
    InvalidError,
    OutcomeUnknownError,
    RefusedError,
    ToolbusError,
    UnavailableError,
)
from toolbus_common.mcp.builtin_server import BUILT_IN, Mode
from toolbus_common.mcp.code_mode_options import CodeModeOptions
from toolbus_common.model_api.tool_forms import parse_object, result_text
from toolbus_common.observability.trace_context import child_of
from toolbus_common.service.service import Service

# Policy waits for the decision of an approval if the caller has opened the page. The call then
# returns after half of its time, and is repeated until the run ends.
_CAPABILITIES = '{"elicitation":{"url":{}}}'
_APPROVAL = "approval"  # the name of the entry in `inputRequests`
_STATE = "toolbus.approval."
_APPROVAL_ID = re.compile(r"[0-9a-f]{32}")
MAX_ROUNDS = 8  # approvals that one call can request
WAIT_SECONDS = 600.0  # of one call that waits for an approval
RETRY_SECONDS = 1.0  # before the first repetition; each later pause is twice as long
LONGEST_PAUSE = 30.0
LARGEST_RESULT = 1 << 20  # characters that the model receives
_OPTIONS = CodeModeOptions(Mode.CODE)
_call_requested = trusted(CallRequested)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one call. `code` is the code of its error; empty if it succeeded.

    `spent` and `calls` are the cost and the number of the calls that a program has made, and
    `by_tool` counts them by full name. `spent` is None if it is unknown.
    """

    result: Result
    code: str = ""
    spent: int | None = 0
    calls: int = 0
    by_tool: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call to make: the full name of its tool, and the call as the model suggested it.

    `key` is the idempotency key: a repeated call gets the first outcome. `suggested_by` is the id
    of the model request. `program` has what the run leaves to a program; None for another tool.
    """

    name: str
    suggested: Suggested
    key: str
    suggested_by: str
    program: CodeModeOptions | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments. Raises `InvalidError` if the model wrote no JSON object."""
        text = self.suggested.arguments
        return parse_object(text.encode()) if text.strip() else {}


@dataclass(slots=True)
class ToolCalls:
    """Caller of the tools of one run. `run` is the parent of all calls.

    `earlier` are the runs whose results the conversation contains.
    """

    service: Service
    directory: ConfigView
    outer: CallAdmitted
    run: str
    trace: str
    taken_over: bool = False  # by another request of the run, which waits for its calls
    earlier: tuple[str, ...] = ()

    async def make(self, wanted: Wanted, budget: RunBudget, waiting: "Waiting") -> Outcome:
        """Make one call, and return its result or its error as text for the model."""
        cost = cost_of(wanted.name, self.directory.now.configuration.prices)
        program, left = wanted.program, budget.left
        amount = charge = budget.hold(cost.reserved if program is None else left or cost.reserved)
        if program is not None and left is not None:
            wanted = dataclasses.replace(wanted, program=replace(program, usd=amount / MICRO))
        try:
            arguments = msgspec.json.encode(wanted.arguments)
            reply = await self._decided(wanted, arguments, budget.limit_of(amount), waiting)
            own = charged(cost.reserved, cost.parts, _size(reply))
            outcome = _outcome(reply, program)
            if outcome.spent is not None:
                own += outcome.spent
                charge = own if left is None else min(amount, own)
        except ToolbusError as error:
            outcome = Outcome(Result(f"{error.code}: {error.reason}", failed=True), error.code)
            if isinstance(error, RefusedError | UnavailableError | InvalidError):
                charge = 0  # not dispatched
                return outcome
            return _unknown(outcome, program)
        else:
            return outcome
        finally:
            budget.settle(amount, charge)

    async def _decided(
        self, wanted: Wanted, arguments: bytes, max_charge: int | None, waiting: "Waiting"
    ) -> FinalReply:
        """Return the reply to a call, after its approval if it needs one."""
        extra, pause, rounds = "", RETRY_SECONDS, 0
        while True:
            call = self._call(wanted, arguments, max_charge, extra)
            waiting.begins(call.call_id)
            try:
                reply = await self._await_reply(call)
            except CallInProgressError:  # this run has made the call before it was interrupted
                await self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            except ApprovalRequiredError as error:
                if not extra or not self._still_waits(error):
                    raise
                continue
            approval, rounds = _approval_of(reply), rounds + 1
            if not approval or rounds > MAX_ROUNDS:
                return reply
            await waiting.for_approval(approval)
            extra = _accepted(approval)

    def _still_waits(self, error: ApprovalRequiredError) -> bool:
        """Return whether the approval of a call is pending, and the run has time to wait."""
        ends = error.data.get("expires_at")
        pending = isinstance(ends, int | float) and ends > time()
        return pending and time() + RETRY_SECONDS < self.outer.deadline

    async def _pause(self, seconds: float) -> None:
        if time() + seconds >= self.outer.deadline:
            raise OutcomeUnknownError(
                "The call was made before the run was interrupted, and its outcome is not known "
                "yet. Check whether it was executed before repeating it."
            )
        await asyncio.sleep(seconds)

    def _call(
        self, wanted: Wanted, arguments: bytes, max_charge: int | None, extra: str
    ) -> CallRequested:
        server, tool = split_name(wanted.name)
        call_id, outer = self.service.calls.new_call_id(), self.outer
        declared = self.directory.now.configuration.servers
        deadline = deadline_of(declared.get(server), tool, time())
        if extra:
            deadline = max(deadline, time() + WAIT_SECONDS)
        return _call_requested(
            call_id=call_id,
            reply_to=self.service.calls.address(call_id),
            server=server,
            tool=tool,
            key_digest=outer.key_digest,
            family=ProtocolFamily.MODERN,
            deadline=min(outer.deadline, deadline),
            traceparent=child_of(self.trace),
            tracestate=outer.tracestate,
            baggage=outer.baggage,
            parent_id=self.run,
            capabilities=_CAPABILITIES,
            extra=extra,
            restriction=outer.restriction,
            run=self.run,
            max_charge=max_charge,
            idempotency_key=wanted.key,
            suggested_by=wanted.suggested_by,
            session=outer.session,
            flow=self._flow(),
            terms=(wanted.program or _OPTIONS).encode() if server == BUILT_IN else "",
            arguments=arguments,
        )

    def _flow(self) -> str:
        """Return the proof that the call belongs to this run; empty if policy needs none."""
        outer = self.outer
        if not outer.flow:
            return ""
        return encode(FlowInputs(outer.flow, outer.call_id, earlier=self.earlier)).decode()

    async def _await_reply(self, call: CallRequested) -> FinalReply:
        try:
            return await self.service.calls.request_detached(call)
        except asyncio.CancelledError:  # the run was cancelled
            if not self.taken_over:
                self.service.spawn(self.service.calls.cancel(call.call_id))
            raise


class Waiting:
    """What a run records of a call in progress. The default records nothing."""

    def begins(self, call_id: str) -> None:
        """Record the id of the call; each repetition has a new id."""

    async def for_approval(self, approval: str) -> None:
        """Record that the call waits for an approval."""


def _accepted(approval: str) -> str:
    """Return the answer of a client that has opened the approval page."""
    answer = {_APPROVAL: {"action": "accept"}}
    state = {"requestState": f"{_STATE}{approval}", "inputResponses": answer}
    return msgspec.json.encode(state).decode()


def _approval_of(reply: FinalReply) -> str:
    """Return the approval that policy requests; empty for any other reply.

    A server writes the body of its own request for input, and never the field `approval`.
    """
    approval = reply.approval if isinstance(reply, InputRequired) else ""
    return approval if _APPROVAL_ID.fullmatch(approval) else ""


def _size(reply: FinalReply) -> int:
    return len(reply.body) if isinstance(reply, CallResult) else 0


def _outcome(reply: FinalReply, program: CodeModeOptions | None) -> Outcome:
    if not isinstance(reply, CallResult):
        text = "invalid: The tool requires input from its caller, which a run cannot provide."
        return _unknown(Outcome(Result(text, failed=True), "invalid"), program)
    result = msgspec.json.decode(reply.body)
    text = result_text(result)
    if len(text) > LARGEST_RESULT:
        text = f"{text[:LARGEST_RESULT]}\n… the result has {len(text):,} characters"
    failed = result.get("isError") is True
    outcome = Outcome(Result(text, failed), "tool_error" if failed else "")
    if program is None:
        return outcome
    report = report_of(result)
    if report is None:
        return _unknown(outcome, program)
    calls = sum(report.by_tool.values())
    return dataclasses.replace(outcome, spent=report.spent, calls=calls, by_tool=report.by_tool)


def _unknown(outcome: Outcome, program: CodeModeOptions | None) -> Outcome:
    """Return the outcome of a program without a report; all that it could use counts as used."""
    if program is None:
        return outcome
    return dataclasses.replace(outcome, spent=None, calls=program.calls or 0)
