"""Follow what runs read: decide about each labelled call, and record its reads before dispatch."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from time import time
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import CallRequested
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.contracts.flow import (
    FlowInputs,
    FlowRead,
    FlowRecord,
    FlowState,
    decode_inputs,
    encode,
)
from toolbus_common.errors import (
    BusDownError,
    FlowRefusedError,
    InvalidError,
    ToolbusError,
    UnavailableError,
)
from toolbus_common.flow.labels import OUTSIDE, Labels
from toolbus_common.nats.sealed_records import Records
from toolbus_policy.flow.decision import FlowVerdict, after, chain_text, decide
from toolbus_policy.flow.quota import RunQuota
from toolbus_policy.flow.repository import NOTHING_READ, Loaded, RunRepository, StoredRun
from toolbus_policy.flow.terms import FlowTerms, Run, agent_run_of, run_of

ATTEMPTS = 16  # while concurrent calls of one run conflict
MAX_EARLIER = 64  # runs whose results one run of agent mode has received
FRESH_SECONDS = 1.0  # after a longer wait for an approval, the state is loaded again

LabelsOf = Callable[[str], Labels]  # by the full name of a tool


class Start(Struct, frozen=True, omit_defaults=True):
    """What policy seals for codemode: the run of a program and what it had read at the start.

    `run` is None for a run of agent mode, whose id codemode adds to each call.
    """

    owner: str
    run: Run | None = None
    before: FlowState = FlowState()


class Caller(Struct, frozen=True):
    """The caller of a call. `owner` is its principal id."""

    principal: Principal
    owner: str


class Judgement(Struct, frozen=True):
    """The decision about one call, with the state that it is based on.

    `before` is what may have reached the call: what its run had read, or, in a program, the part
    that can reach the arguments of this call (`narrowed`). `inherited` is what earlier runs had
    read, if this run of agent mode has received their results.
    """

    terms: FlowTerms
    run: Run
    caller: Caller
    loaded: Loaded
    before: FlowState
    verdict: FlowVerdict
    narrowed: bool = False
    inherited: FlowState = NOTHING_READ

    @property
    def must_be_approved(self) -> bool:
        """Whether the call needs an approval."""
        return self.verdict == "asked"

    @property
    def context(self) -> dict[str, bool]:
        """The attribute `run` of the context of rules."""
        return {
            "has_read_private": self.before.private is not None,
            "has_read_untrusted": self.before.untrusted is not None,
        }

    @property
    def record(self) -> str:
        """The field `flow` of the call's event."""
        private, untrusted = self.before.private, self.before.untrusted
        return encode(
            FlowRecord(
                run=self.run.id,
                verdict=self.verdict,
                private=private.call if private is not None else "",
                untrusted=untrusted.call if untrusted is not None else "",
                chain=_names(self.before),
                reads=self.terms.labels.reads,
                writes=self.terms.labels.writes,
                narrowed=self.narrowed,
            )
        ).decode()

    @property
    def chain(self) -> tuple[str, ...]:
        """The calls that have read, in their order, for an approver."""
        private, untrusted = self.before.private, self.before.untrusted
        return tuple(
            f"{full_name(each.server, each.tool)} read "
            f"{_kinds(private=each == private, untrusted=each == untrusted)} (call {each.call})"
            for each in self.before.chain
        )

    def why(self, call: CallRequested) -> str:
        """Return the reason, with the chain of calls."""
        return (
            "This run has read private data and untrusted content: "
            f"{chain_text(self.before, call.server, call.tool)}"
        )

    def check(self, call: CallRequested) -> None:
        """Raise `FlowRefusedError` if the call is refused."""
        if self.verdict != "refused":
            return
        raise FlowRefusedError(
            f"{self.why(call)} Finish the task without '{full_name(call.server, call.tool)}', or "
            "do this step in a new session that does not read both.",
            **self.data(call),
        )

    def data(self, call: CallRequested) -> dict[str, Any]:
        """Return the judgement for the data of an error; `chain` ends with this call."""
        private, untrusted = self.before.private, self.before.untrusted
        return {
            "chain": [*_names(self.before), full_name(call.server, call.tool)],
            "private": private.call if private is not None else "",
            "untrusted": untrusted.call if untrusted is not None else "",
            "run": self.run.id,
        }


class FlowFollower:
    """Follower of all runs. `records` seals what codemode carries for policy."""

    def __init__(
        self, repository: RunRepository, records: Records, quota: RunQuota | None = None
    ) -> None:
        self._repository = repository
        self._records = records
        self._quota = quota or RunQuota()

    async def judge(
        self, call: CallRequested, caller: Caller, terms: FlowTerms, labels_of: LabelsOf
    ) -> Judgement:
        """Return the judgement of a call. Raises `BusDownError` if the state is unknown."""
        inputs, start = self._opened(call, caller)
        run = self._run(call, caller, terms, start)
        loaded = await self._repository.load(run.id)
        inherited = await self._inherited(call, caller, run) if start is not None else NOTHING_READ
        before, narrowed = _joined(loaded.state, inherited), False
        if start is not None and start.run == run and inputs is not None:
            before, narrowed = _reaching(start.before, loaded.state, inputs, labels_of), True
        verdict = decide(before, terms.labels, terms.action)
        return Judgement(terms, run, caller, loaded, before, verdict, narrowed, inherited)

    async def commit(self, judged: Judgement | None, call: CallRequested) -> None:
        """Record what the call reads. It must not be dispatched before this returns.

        Raises `BusDownError`; the state may then contain a call that is not dispatched. Raises
        `OverloadedError` if the principal has too many runs.
        """
        if judged is None:
            return
        labels = judged.terms.labels
        if not (labels.reads_private or labels.reads_untrusted or judged.inherited != NOTHING_READ):
            return
        read = FlowRead(call.call_id, call.server, call.tool, time())
        loaded = judged.loaded
        if time() - loaded.at > FRESH_SECONDS:
            loaded = await self._repository.load(judged.run.id)
        if loaded.revision == 0:
            self._quota.take(judged.caller.owner)
        for _ in range(ATTEMPTS):
            state = after(_joined(loaded.state, judged.inherited), labels, read)
            ends = judged.run.renewed(loaded.ends, time())
            if state == loaded.state and ends == loaded.ends:
                return
            principal = judged.caller.principal
            stored = StoredRun(state, ends, judged.run.scope, principal.key, principal.customer)
            if await self._repository.put(judged.run.id, stored, loaded):
                return
            loaded = await self._repository.load(judged.run.id)
        raise BusDownError("Concurrent calls of this run kept conflicting; retry.")

    def sealed(self, judged: Judgement | None, call: CallRequested) -> str:
        """Return the sealed start, which all calls of a program or agent run repeat; else empty."""
        if judged is None or not judged.terms.starts:
            return ""
        is_program = call.method != AGENT_RUN
        start = Start(
            judged.caller.owner,
            judged.run if is_program else None,
            judged.before if is_program else FlowState(),
        )
        return b64encode(self._records.seal(_place(call.call_id), encode(start))).decode()

    def _opened(
        self, call: CallRequested, caller: Caller
    ) -> tuple[tuple[str, ...] | None, Start | None]:
        """Return the inputs of a call that codemode made, and the start of its program.

        Both are None for all other calls. Only codemode receives what policy has sealed, so the
        seal proves the sender. Raises `InvalidError` for any other sender or caller.
        """
        if not call.flow:
            return None, None
        try:
            sent: FlowInputs = decode_inputs(call.flow)
            opened = self._records.open(_place(sent.parent), b64decode(sent.sealed, validate=True))
            start = msgspec.json.decode(opened, type=Start)
        except (UnavailableError, ValueError):
            start = None
        if start is None or start.owner != caller.owner:
            raise InvalidError(
                "The call names a program whose information flow policy cannot verify, so it was "
                "not dispatched. Start the program again."
            )
        return sent.inputs, start

    async def _inherited(self, call: CallRequested, caller: Caller, run: Run) -> FlowState:
        """Return the reads of the earlier runs whose results a run of agent mode has received."""
        found = NOTHING_READ
        for earlier in decode_inputs(call.flow).earlier[:MAX_EARLIER]:
            other = agent_run_of(earlier, caller.owner).id
            if other != run.id:
                found = _joined(found, (await self._repository.load(other)).state)
        return found

    def _run(
        self, call: CallRequested, caller: Caller, terms: FlowTerms, start: Start | None
    ) -> Run:
        usual = run_of(call, caller.principal, caller.owner, terms.flow)
        if start is None or (terms.flow is not None and terms.flow.per == "key"):
            return usual
        return start.run if start.run is not None else agent_run_of(call.run, caller.owner)


def _joined(first: FlowState, second: FlowState) -> FlowState:
    return FlowState(first.private or second.private, first.untrusted or second.untrusted)


def _reaching(
    before: FlowState, now: FlowState, inputs: tuple[str, ...], labels_of: LabelsOf
) -> FlowState:
    """Return the reads that can affect a call: those before its program, and its inputs' reads."""
    labels = [labels_of(name) for name in inputs]
    private = now.private if any(each.reads_private for each in labels) else None
    untrusted = now.untrusted if any(each.reads_untrusted for each in labels) else None
    return FlowState(before.private or private, before.untrusted or untrusted)


def denied_record(error: ToolbusError) -> str:
    """Return the field `flow` of the event of a denied call; empty if the flow did not deny it."""
    verdict: FlowVerdict = "refused"
    data: Any = error.data
    if not isinstance(error, FlowRefusedError):
        verdict, data = "asked", error.data.get("flow")
    if data is None:
        return ""
    record = FlowRecord(
        run=data["run"],
        verdict=verdict,
        private=data["private"],
        untrusted=data["untrusted"],
        chain=tuple(data["chain"][:-1]),
        writes=OUTSIDE,
    )
    return encode(record).decode()


def _kinds(*, private: bool, untrusted: bool) -> str:
    kinds = ((private, "private data"), (untrusted, "untrusted content"))
    return " and ".join(kind for is_set, kind in kinds if is_set)


def _names(state: FlowState) -> tuple[str, ...]:
    return tuple(full_name(each.server, each.tool) for each in state.chain)


def _place(call_id: str) -> str:
    return f"program.{call_id}"
