"""One run: the model is asked, its suggested calls are made, and it is asked again."""

import asyncio
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import msgspec

from toolbus_codemode.agent import limits as bounds
from toolbus_codemode.agent.automatic_tools import AutomaticTools
from toolbus_codemode.agent.dialects.base import Dialect, Ending, Json, Result, Suggested, Turn
from toolbus_codemode.agent.dialects.events import data_of
from toolbus_codemode.agent.limits import Reached
from toolbus_codemode.agent.model_turns import ModelTurns
from toolbus_codemode.agent.outlet import Outlet
from toolbus_codemode.agent.run_record import Content, State, Step
from toolbus_codemode.agent.run_store import RunEntry
from toolbus_codemode.agent.tool_calls import Outcome, ToolCalls, Waiting, Wanted
from toolbus_codemode.programs.budget import RunBudget
from toolbus_codemode.programs.limits import Cap
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import ModelTarget
from toolbus_common.config.access.agent_mode import AgentMode
from toolbus_common.contracts.model_calls import ModelReport, model_name
from toolbus_common.errors import (
    CallInProgressError,
    InvalidError,
    OutcomeUnknownError,
    RefusedError,
    RunBudgetExceededError,
    ToolbusError,
    UnavailableError,
    UpstreamTimeoutError,
)
from toolbus_common.mcp.builtin_server import BUILT_IN, EXECUTE
from toolbus_common.nats.connection import LARGEST_MESSAGE
from toolbus_common.service.service import Service

LARGEST_CONVERSATION = LARGEST_MESSAGE - (1 << 20)  # bytes; a call has other fields
LARGEST_RESULTS = 2 << 20  # bytes of the results of one turn
LARGEST_KEPT = 1 << 20  # characters of the content of a run that has completed
PROGRAM = full_name(BUILT_IN, EXECUTE)
CLOCK_SECONDS = 0.5  # a step that ends this long before the deadline of its run has reached it
AT_ONCE = 16  # tool calls of one turn


@dataclass(slots=True)
class AgentRun:
    """One run, from its first request or from where an earlier request ended.

    `tools_of` returns the full name of a tool that is executed automatically. `body` is the
    client's request, in which executed calls of earlier runs are restored.
    """

    service: Service
    entry: RunEntry
    content: Content
    limits: AgentMode
    dialect: Dialect
    body: Json
    key_digest: str
    tools_of: AutomaticTools
    calls: ToolCalls
    outlet: Outlet | None  # of a streamed response
    models: ModelTurns = field(init=False)
    budget: RunBudget = field(init=False)
    _began: float = field(default_factory=monotonic)
    _before: float = 0.0  # seconds of earlier requests
    _stream: Any = None
    _step: Step | None = None
    _saving: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Start with what earlier requests of the run have used."""
        used = self.content.used
        self._before = used.seconds
        usd = self.limits.usd
        self.budget = RunBudget(None if usd is None else Cap(usd, f"key:{self.entry.record.key}"))
        self.budget.spent = used.cost
        if self.outlet is not None:
            run = self.entry.record.run
            self._stream = self.dialect.stream(run, self.body, self._is_automatic)

    async def run(self, principal: Principal) -> bytes:
        """Run to the end, and return the response; it is empty after a stream.

        Raises:
            ToolbusError: the model could not be asked, or the state could not be stored.

        """
        turns = self.content.turns
        for turn in turns:
            self._replay(turn)
        while True:
            if not turns or not self._open(turns[-1]):
                if turns and self._ended(turns[-1]):
                    return await self._finish(turns[-1])
                reached = bounds.before_turn(self.limits, self._used())
                if reached is None:
                    reached = await self._ask(principal)
                if reached is not None:
                    return await self._finish(None, reached)
            turn = turns[-1]
            reached = await self._execute(turn)
            self._put(self._stream.results(turn) if self._stream else b"")
            if reached is not None:
                return await self._finish(None, reached)

    # -- the model -----------------------------------------------------------------------------

    async def _ask(self, principal: Principal) -> Reached | None:
        """Ask the model, and append its turn; return the limit that ended the request, if any."""
        used, turns = self._used(), self.content.turns
        self.tools_of.refresh()
        body = msgspec.json.encode(self.dialect.conversation(self.body, turns))
        if len(body) > LARGEST_CONVERSATION:
            raise too_large(len(body))
        used.turns += 1
        used.asking, used.held = True, None
        await self.save(State.RUNNING)
        if self._stream is not None:
            self._stream.begin_turn()
        try:
            response = await self.models.ask(principal, body, lambda: self.budget.left, self._relay)
        except RunBudgetExceededError:
            return bounds.run_budget(self.limits)
        except ToolbusError as error:
            used.asking = False
            # A stream that has begun cannot be completed, so it ends with the error.
            if self._is_late(error) and not self.models.started:
                return bounds.out_of_time(self.limits)
            raise
        self._settle()
        turn = self._stream.turn() if self._stream is not None else self.dialect.read(response)
        turn.request_id = self._step.call_id if self._step is not None else ""
        self._end_step("done")
        turns.append(turn)
        return None

    def begin_model_call(self, call_id: str, target: ModelTarget) -> None:
        """Record a model request that is about to be sent."""
        self.content.used.asking = True
        name = model_name(target.provider, target.model)
        self._step = Step("model", name, call_id, time())
        self.entry.record.steps.append(self._step)

    def note_failure(self, error: ToolbusError) -> None:
        """Record that a model request failed.

        Without a final report, it counts with the most that it can cost.
        """
        used = self.content.used
        self._end_step("failed", error.code)
        refused = isinstance(error, RefusedError | UnavailableError | InvalidError)
        if used.held is None and refused:  # not sent
            used.asking = False
        self._settle()

    def _is_late(self, error: ToolbusError) -> bool:
        """Return whether a model request failed because the time of the run ended."""
        timed_out = isinstance(error, OutcomeUnknownError | UpstreamTimeoutError)
        return timed_out and self._used().seconds >= self.limits.seconds - CLOCK_SECONDS

    def _settle(self) -> None:
        """Count a model request whose charge was not reported, at the most that it can cost."""
        used = self.content.used
        used.settle_interrupted(self.limits)
        self.budget.spent = used.cost

    def note_report(self, report: ModelReport) -> None:
        """Count the cost of a model request: first the most that it can cost, then its charge."""
        used = self.content.used
        if not report.is_final:
            used.held = report.charge
            if self.limits.usd is not None:
                # If this service ends now, the next request counts the bound.
                self.service.calls.spawn(self._save_quietly())
            return
        used.asking, used.held = False, None
        self.budget.spent += report.charge
        used.cost = self.budget.spent
        used.tokens += report.input + report.output

    def _relay(self, part: bytes) -> None:
        """Pass on complete events of the model's stream, in the form of the run's response."""
        for data in data_of(part):
            self._put(self._stream.feed(data))

    # -- the tools -----------------------------------------------------------------------------

    async def _execute(self, turn: Turn) -> Reached | None:
        """Make the automatic calls without a result; return the limit that forbids them, if any."""
        wanted = [
            (at, self.tools_of(call.name), call)
            for at, call in enumerate(turn.calls)
            if call.call_id not in turn.results and self._is_automatic(call.name)
        ]
        if not wanted:
            return None
        if not turn.counted:
            named = [(name, call) for _, name, call in wanted]
            reached = bounds.count_calls(self.limits, self._used(), named)
            if reached is not None:
                for _, _, call in wanted:
                    text = f"Not executed: the limit '{reached.limit}' of the run is reached."
                    turn.results[call.call_id] = Result(text, failed=True)
                return reached
            turn.counted = True
        number, gate = len(self.content.turns), asyncio.Semaphore(AT_ONCE)
        await self.save(State.RUNNING)
        async with asyncio.TaskGroup() as group:
            for at, name, call in wanted:
                if name != PROGRAM:
                    group.create_task(self._execute_one(gate, turn, f"{number}/{at}", name, call))
        for at, name, call in wanted:  # each program may use everything that the run has left
            if name == PROGRAM:
                await self._execute_one(gate, turn, f"{number}/{at}", name, call)
        return None

    async def _execute_one(
        self, gate: asyncio.Semaphore, turn: Turn, place: str, name: str, call: Suggested
    ) -> None:
        """Make one call, and record its result before the run continues."""
        async with gate:
            step = Step("tool", name, "", time())
            self.entry.record.steps.append(step)
            key = f"toolbus.run/{self.entry.record.run}/{place}"
            recording = _Recording(self, step)
            used = self._used()
            program = used.left_to_program(self.limits) if name == PROGRAM else None
            wanted = Wanted(name, call, key, turn.request_id, program)
            outcome: Outcome = await self.calls.make(wanted, self.budget, recording)
            step.state, step.code = ("failed" if outcome.code else "done"), outcome.code
            step.waiting = False
            self.entry.record.approval = ""
            used.count_program(outcome.calls, outcome.by_tool)
            turn.results[call.call_id] = _within(turn, outcome.result)
            self._used().cost = self.budget.spent
            await self.save(State.RUNNING)

    # -- the state -----------------------------------------------------------------------------

    async def save(self, state: State, code: str = "", reason: str = "") -> None:
        """Store the run. Raises like `RunEntry.save`."""
        async with self._saving:
            record = self.entry.record
            record.state, record.code, record.reason = state, code, reason
            self._used()
            record.seal(self.content, self.key_digest)
            if state is State.COMPLETED and len(record.sealed) > LARGEST_KEPT:
                record.sealed = ""
            try:
                await self.entry.save()
            except CallInProgressError:
                self.calls.taken_over = True
                raise

    async def end_badly(self, state: State, code: str, reason: str) -> None:
        """Store how a run ended without a response, as far as possible."""
        await self.models.until_ended()
        for step in self.entry.record.steps:
            if step.state == "running":
                step.state, step.code = "unknown", code
        try:
            try:
                await self.save(state, code, reason)
            except InvalidError:  # the content is too large; without it the run cannot be continued
                self.entry.record.sealed = ""
                await self.entry.save()
        except ToolbusError:
            return  # it stays interrupted in its last stored state

    async def _save_quietly(self) -> None:
        try:
            await self.save(self.entry.record.state)
        except ToolbusError:
            return  # the next step reports the same error

    def _used(self) -> bounds.Used:
        used = self.content.used
        used.seconds = self._before + monotonic() - self._began
        return used

    def _end_step(self, state: str, code: str = "") -> None:
        if self._step is not None and self._step.state == "running":
            self._step.state, self._step.code = state, code
        self._step = None

    # -- the response --------------------------------------------------------------------------

    async def _finish(self, last: Turn | None, reached: Reached | None = None) -> bytes:
        """Store the end of the run, and return its response; end the stream if it has one."""
        pending = (
            frozenset(
                call.call_id
                for call in (last.calls if last else ())
                if call.call_id not in last.results
            )
            if last
            else frozenset[str]()
        )
        run = self.entry.record.run
        ending = Ending(run, pending)
        state = State.PENDING if pending else State.COMPLETED
        if reached is not None:
            ending = Ending(run, limit=reached.limit, note=reached.note)
            state = State.LIMITED
        turns = self.content.turns
        await self.save(state, f"limit_{reached.limit}" if reached else "")
        if self._stream is None:
            return self.dialect.body(turns, ending, self._is_automatic)
        self._put(self._stream.end(turns, ending))
        if self.outlet is not None:
            await self.outlet.flush()
        return b""

    def _replay(self, turn: Turn) -> None:
        if self._stream is not None:
            self._put(self._stream.replayed(turn))
            if not self._open(turn):
                self._put(self._stream.results(turn))

    def _put(self, events: bytes) -> None:
        if self.outlet is not None:
            self.outlet.put(events)

    def _open(self, turn: Turn) -> bool:
        """Return whether calls of a turn are still to be made."""
        return any(
            call.call_id not in turn.results and self._is_automatic(call.name)
            for call in turn.calls
        )

    def _ended(self, turn: Turn) -> bool:
        """Return whether a turn ends the run: it has no calls, or calls for the client."""
        return len(turn.results) < len(turn.calls) or not turn.calls

    def _is_automatic(self, name: str) -> bool:
        return bool(self.tools_of(name))


def too_large(size: int) -> InvalidError:
    """Return the error for a conversation that no model request can contain."""
    return InvalidError(
        f"The conversation has {size:,} bytes, and at most {LARGEST_CONVERSATION:,} are allowed. "
        "Send fewer messages, or use tools that return less."
    )


def _within(turn: Turn, result: Result) -> Result:
    """Return a result, cut so that all results of the turn together stay within their limit."""
    data = result.text.encode(errors="replace")
    taken = sum(len(each.text.encode(errors="replace")) for each in turn.results.values())
    left = max(0, LARGEST_RESULTS - taken)
    if len(data) <= left:
        return result
    text = data[:left].decode(errors="ignore")
    return Result(f"{text}\n… cut: the results of one turn are too large", result.failed)


class _Recording(Waiting):
    """Records the progress of one call in the run's state."""

    def __init__(self, run: AgentRun, step: Step) -> None:
        self._run = run
        self._step = step

    def begins(self, call_id: str) -> None:
        self._step.call_id = call_id

    async def for_approval(self, approval: str) -> None:
        self._step.waiting = True
        self._run.entry.record.approval = approval
        await self._run.save(State.WAITING)


def interrupted_calls(entry: RunEntry) -> list[str]:
    """Return the calls of an interrupted request that still run but need not continue.

    These are model requests, whose response has no receiver, and calls that wait for approval.
    """
    return [
        step.call_id
        for step in entry.record.steps
        if step.state == "running" and step.call_id and (step.kind == "model" or step.waiting)
    ]


async def cancel_calls(service: Service, call_ids: list[str]) -> None:
    """Publish that calls are no longer needed."""
    for call_id in call_ids:
        await service.calls.cancel(call_id)
