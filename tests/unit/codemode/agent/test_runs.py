"""Runs against a chain that makes each call once per idempotency key, as policy and executor do."""

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine
from time import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.builders.calls import admitted_call
from harness.builders.configurations import configuration_change
from toolbus_codemode.agent.runs import AgentRuns
from toolbus_codemode.agent.tool_calls import MAX_ROUNDS
from toolbus_codemode.programs.program_report import ProgramReport
from toolbus_common.access.config_snapshot import ConfigView, hash_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    CallAdmitted,
    CallRequested,
    CallResult,
    Event,
    FinalReply,
    InputRequired,
    Notification,
    OwnRunsRequest,
    RunsRequest,
)
from toolbus_common.contracts.agent_runs import AGENT, AGENT_RUN, AgentCall
from toolbus_common.contracts.model_calls import CHAT, REPORT, ModelReport, is_model_method
from toolbus_common.contracts.replies import DeadlineExtended
from toolbus_common.errors import (
    BusDownError,
    CallInProgressError,
    ConflictError,
    InvalidError,
    RunBudgetExceededError,
    ToolbusError,
    UnknownEntryError,
    UpstreamDeadError,
)
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.mcp.code_mode_options import CodeModeOptions, decode_options
from toolbus_common.nats.kv_bucket import Change

DIGEST, OTHER = "d" * 64, "e" * 64
NAMES = {
    "program": "toolbus__executeToolCode",
    "say": "shop__say",
    "count": "shop__count",
    "push": "shop__push",
}
BODY = json.dumps({"model": "m/x", "messages": [{"role": "user", "content": "go"}]}).encode()
BOUND, CHARGE = 500, 100
Hook = Callable[[CallRequested], None]


class MemoryBucket:
    """A bucket in memory; `down` makes its writes fail."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, bytes]] = {}
        self.writes = 0
        self.down = False

    async def get(self, key: str) -> Change | None:
        found = self.entries.get(key)
        return Change(key, found[1], found[0]) if found else None

    async def swap(self, key: str, value: bytes, last: int) -> int | None:
        if self.down:
            raise BusDownError("down")
        if self.entries.get(key, (0, b""))[0] != last:
            return None
        self.writes += 1
        self.entries[key] = (self.writes, value)
        return self.writes

    async def present(self, pattern: str) -> list[Change]:
        owner, _, run = pattern.partition(".")
        return [
            Change(key, value, revision)
            for key, (revision, value) in self.entries.items()
            if owner in (">", "*", key.partition(".")[0])
            and run in ("", "*", key.partition(".")[2])
        ]


class Chain:
    """Policy, executor and the servers. `executed` has the tool calls that ran."""

    def __init__(self, script: list[list[str]]) -> None:
        self.script = script
        self.executed: list[str] = []
        self.replies: dict[str, FinalReply] = {}
        self.programs: list[CodeModeOptions] = []
        self.requests: list[CallRequested] = []
        self.outcomes: dict[str, FinalReply] = {}
        self.before: Hook = lambda _call: None
        self.after: Hook = lambda _call: None
        self.cancelled: list[str] = []
        self.events: list[Event] = []
        self._ids = itertools.count(1)

    def service(self) -> Any:
        """Return the service of codemode."""
        calls = SimpleNamespace(
            new_call_id=lambda: f"{next(self._ids):x}", address=lambda call: f"tb.reply.{call}",
            request=self.request, request_detached=self.request, spawn=self.spawn,
        )  # fmt: skip
        bus = SimpleNamespace(publish=self._publish)
        events = SimpleNamespace(publish=self.events.append)
        return SimpleNamespace(calls=calls, bus=bus, events=events, spawn=self.spawn)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work)

    async def request(self, call: CallRequested, receive: Any = None) -> FinalReply:
        self.before(call)
        if is_model_method(call.method):
            return self._answer(call, receive)
        if call.tool in self.replies:
            self.executed.append(call.tool)
            self.programs.append(decode_options(call.terms))
            return self.replies[call.tool]
        if call.idempotency_key not in self.outcomes:
            self.executed.append(f"{call.tool} {call.arguments.decode()}")
            text = {"content": [{"type": "text", "text": f"did {call.tool}"}]}
            self.outcomes[call.idempotency_key] = CallResult(json.dumps(text).encode())
        self.after(call)
        return self.outcomes[call.idempotency_key]

    def _answer(self, call: CallRequested, receive: Any) -> FinalReply:
        if call.max_charge is not None and call.max_charge < BOUND:
            raise RunBudgetExceededError("too much")
        self.requests.append(call)
        receive(Notification(REPORT, ModelReport(BOUND).encode()))
        self.after(call)
        receive(Notification(REPORT, ModelReport(CHARGE, 7, 3, is_final=True).encode()))
        sent = json.loads(call.arguments)["messages"]
        turn = sum(each["role"] == "assistant" for each in sent)
        names = self.script[turn] if turn < len(self.script) else []
        message: dict[str, Any] = {"role": "assistant", "content": f"turn {turn}"}
        message["tool_calls"] = [
            {"id": f"c{turn}-{at}", "function": {"name": name, "arguments": "{}"}}
            for at, name in enumerate(names)
        ]
        reason = "tool_calls" if names else "stop"
        choice = {"message": message, "finish_reason": reason}
        return CallResult(json.dumps({"id": "x", "choices": [choice]}).encode())

    async def _publish(self, subject: str, _data: bytes) -> None:
        self.cancelled.append(subject.rpartition(".")[2])


class Context:
    """The caller of a run."""

    async def send(self, message: Any) -> None:
        """Accept signs of life only: nothing is streamed."""
        assert isinstance(message, DeadlineExtended)


class Gateway:
    """Codemode, which can be started again with the same bucket."""

    def __init__(self, script: list[list[str]], **limits: Any) -> None:
        terms: dict[str, Any] = {
            "tools": ["*"], "models": ["*"],
            "auto_execute": ["shop__say", "shop__count", "toolbus__*"], "agent": limits,
        }  # fmt: skip
        declared = Configuration.model_validate(
            {
                "providers": {"m": {"kind": "openai", "url": "http://m.example/v1"}},
                "keys": {
                    "bot": {**terms, "secret_hash": hash_of(DIGEST)},
                    "other": {**terms, "secret_hash": hash_of(OTHER)},
                },
            }
        )
        self.directory = ConfigView()
        self.directory.projection.apply_change(configuration_change(declared))
        self.directory.projection.apply_change(None)
        self.chain, self.bucket = Chain(script), MemoryBucket()
        self.runs: AgentRuns
        self.restart()

    def restart(self) -> None:
        self.runs = AgentRuns(self.chain.service(), self.directory)
        self.runs.open(cast("Any", self.bucket))

    async def run(
        self, call_id: str = "a1", resumed: str = "", body: bytes = BODY, **fields: Any
    ) -> Any:
        """Run a request, and return its response."""
        call = self.call(call_id, resumed, body, **fields)
        principal = self.directory.now.principal_for(DIGEST, time())
        assert principal
        return json.loads((await self.runs.run(call, principal, cast("Any", Context()))).body)

    def call(self, call_id: str, resumed: str, body: bytes, **fields: Any) -> CallAdmitted:
        agent_call = AgentCall(CHAT, "m/x", names=NAMES, resumed=resumed, **fields)
        return admitted_call(
            call_id=call_id, server=BUILT_IN, tool=AGENT, method=AGENT_RUN, key="bot",
            key_digest=DIGEST, principal_id=self.owner(), extra=agent_call.encode(), arguments=body,
            deadline=time() + 60,
        )  # fmt: skip

    def owner(self) -> str:
        from toolbus_common.access.session_owner import principal_id_of  # noqa: PLC0415

        principal = self.directory.now.principal_for(DIGEST, time())
        assert principal
        return principal_id_of(principal, DIGEST)

    async def state(self, run: str = "a1") -> Any:
        (found,) = (await self.runs.answer(RunsRequest(run=run))).runs
        return found


def first_time(wanted: Callable[[CallRequested], bool], error: ToolbusError) -> Hook:
    """Return a hook that fails once."""
    left = [error]

    def hook(call: CallRequested) -> None:
        if left and wanted(call):
            raise left.pop()

    return hook


async def test_calls_of_a_turn_have_keys_of_their_own_and_one_parent() -> None:
    gateway = Gateway([["say", "say"], ["count"]])
    response = await gateway.run()
    assert response["choices"][0]["message"]["content"] == "turn 0\n\nturn 1\n\nturn 2"
    keys = list(gateway.chain.outcomes)
    assert keys == [f"toolbus.run/a1/{place}" for place in ("1/0", "1/1", "2/0")]
    assert {each.parent_id for each in gateway.chain.requests} == {"a1"}
    state = await gateway.state()
    assert (state.state, state.turns, state.calls, state.tokens) == ("completed", 3, 3, 30)
    assert state.cost == 3 * CHARGE
    assert [each.NAME for each in gateway.chain.events] == ["run.started", "run.completed"]


@pytest.mark.parametrize("tool", ["say", "count"])
async def test_an_interrupted_call_is_not_made_again(tool: str) -> None:
    """Store its outcome, but not the state of the run, as if codemode were killed then."""
    gateway = Gateway([["say"], ["count"]])

    def kill(call: CallRequested) -> None:
        gateway.bucket.down = call.tool == tool

    gateway.chain.after = kill
    with pytest.raises(BusDownError):
        await gateway.run()
    gateway.chain.after, gateway.bucket.down = (lambda _call: None), False
    gateway.restart()
    assert (await gateway.state()).state == "running"
    response = await gateway.run("a2", "a1")
    assert response["choices"][0]["message"]["content"] == "turn 0\n\nturn 1\n\nturn 2"
    assert gateway.chain.executed == ["say {}", "count {}"]
    assert len(gateway.chain.requests) == 3


async def test_an_interrupted_model_request_is_repeated_when_the_run_continues() -> None:
    gateway = Gateway([["say"]])
    second = lambda call: len(gateway.chain.requests) == 2 and bool(call.method == CHAT)  # noqa: E731
    gateway.chain.after = first_time(second, UpstreamDeadError("gone"))
    with pytest.raises(UpstreamDeadError, match="x-toolbus-run: a1"):
        await gateway.run()
    assert (await gateway.state()).state == "failed"
    await gateway.run("a2", "a1")
    assert (len(gateway.chain.requests), gateway.chain.executed) == (3, ["say {}"])
    assert (await gateway.state()).turns == 3


async def test_without_a_stored_state_no_step_is_made() -> None:
    gateway = Gateway([["say"]])
    gateway.bucket.down = True
    with pytest.raises(BusDownError):
        await gateway.run()
    assert (gateway.chain.requests, gateway.chain.executed) == ([], [])


async def test_a_request_that_continues_a_run_ends_the_earlier_one() -> None:
    gateway = Gateway([["say"], ["count"]])
    taken: list[Any] = []
    began = asyncio.Event()

    def take_over(call: CallRequested) -> None:
        if call.tool == "say" and not taken:
            taken.append(asyncio.ensure_future(gateway.run("a2", "a1")))
            began.set()

    gateway.chain.after = take_over
    first = asyncio.ensure_future(gateway.run())
    await began.wait()
    done = await asyncio.gather(first, *taken, return_exceptions=True)
    assert sum(isinstance(each, CallInProgressError) for each in done) == 1
    assert gateway.chain.executed == ["say {}", "count {}"]


async def test_only_the_same_request_continues_a_run() -> None:
    gateway = Gateway([])
    await gateway.run()
    other = BODY.replace(b"go", b"no")
    with pytest.raises(InvalidError, match="Send the same body"):
        await gateway.run("a2", "a1", other)
    with pytest.raises(UnknownEntryError):
        await gateway.run("a2", "ffff")
    assert (await gateway.run("a2", "a1"))["id"] == "chatcmpl-a1"
    assert len(gateway.chain.requests) == 1


async def test_a_run_of_another_principal_looks_unknown() -> None:
    gateway = Gateway([])
    await gateway.run()
    own = await gateway.runs.answer_own(OwnRunsRequest(key_digest=DIGEST))
    assert [each.run for each in own.runs] == ["a1"]
    assert (await gateway.runs.answer_own(OwnRunsRequest(key_digest=OTHER))).runs == ()
    for cancel in (False, True):
        with pytest.raises(UnknownEntryError):
            await gateway.runs.answer_own(OwnRunsRequest(key_digest=OTHER, run="a1", cancel=cancel))


async def test_a_cancelled_run_makes_no_further_step_and_cannot_be_continued() -> None:
    gateway = Gateway([["say"], ["count"]])

    async def cancel() -> None:
        await gateway.runs.answer(RunsRequest(run="a1", cancel=True))

    cancelling: list[Any] = []

    def on_call(call: CallRequested) -> None:
        if call.tool == "say":
            cancelling.append(asyncio.ensure_future(cancel()))

    gateway.chain.after = on_call
    with pytest.raises(ToolbusError):
        await gateway.run()
    await asyncio.gather(*cancelling)
    assert "a1" in gateway.chain.cancelled
    with pytest.raises(ConflictError, match="was cancelled"):
        await gateway.run("a2", "a1")
    with pytest.raises(ConflictError):
        await gateway.runs.answer(RunsRequest(run="a1", cancel=True))


async def test_calls_that_are_not_automatic_are_pending() -> None:
    gateway = Gateway([["say", "push"]])
    response = await gateway.run()
    (pending,) = response["choices"][0]["message"]["tool_calls"]
    assert (pending["function"]["name"], pending["id"]) == ("push", "tb_a1_1")
    assert gateway.chain.executed == ["say {}"]
    assert (await gateway.state()).state == "pending"


async def test_money_ends_a_run_before_a_request_that_could_exceed_it() -> None:
    gateway = Gateway([["say"]] * 9, usd=(BOUND + CHARGE) / 1e6, repeats=9)
    response = await gateway.run()
    assert response["toolbus"]["limit"] == "usd"
    assert len(gateway.chain.requests) == 2
    assert (await gateway.state()).cost <= BOUND + CHARGE


def ran(**used: Any) -> CallResult:
    """Return the result of a program with its report."""
    result = {"content": [{"type": "text", "text": "done"}]}
    return CallResult(json.dumps(ProgramReport(**used).added(result)).encode())


async def test_a_program_gets_what_the_run_has_left_and_its_calls_count() -> None:
    gateway = Gateway([["say"], ["program"], ["program"]], usd=0.01, calls=9, calls_per_tool=5)
    gateway.chain.replies["executeToolCode"] = ran(spent=4_000, by_tool={"shop__say": 2, "b": 1})
    await gateway.run()
    first, second = gateway.chain.programs
    assert (first.usd, first.calls) == ((10_000 - 2 * CHARGE) / 1e6, 7)
    assert (second.usd, second.calls) == ((6_000 - 3 * CHARGE) / 1e6, 3)
    assert second.run is not None
    assert (second.run.calls_per_tool, second.run.used["shop__say"]) == (5, 3)
    state = await gateway.state()
    assert (state.cost, state.calls) == (8_000 + 4 * CHARGE, 9)


async def test_a_program_without_a_report_counts_as_everything_that_was_left() -> None:
    gateway = Gateway([["program"], ["say"]], usd=0.01, calls=9)
    gateway.chain.replies["executeToolCode"] = CallResult(b'{"content":[]}')
    assert (await gateway.run())["toolbus"]["limit"] == "usd"
    state = await gateway.state()
    assert (state.cost, state.calls, len(gateway.chain.requests)) == (10_000, 9, 1)


@pytest.mark.parametrize(("approval", "made"), [("", 1), ("x", 1), ("a" * 32, MAX_ROUNDS + 1)])
async def test_only_policy_requests_an_approval_and_not_without_end(
    approval: str, made: int
) -> None:
    gateway = Gateway([["say"]])
    state = {"resultType": "input_required", "requestState": "toolbus.approval." + "b" * 32}
    gateway.chain.replies["say"] = InputRequired(json.dumps(state).encode(), approval)
    await gateway.run()
    assert gateway.chain.executed == ["say"] * made
    assert (await gateway.state()).approval == ""


async def test_a_run_continues_with_the_client_s_body_and_other_added_tools() -> None:
    gateway = Gateway([])
    await gateway.run(body=BODY, body_digest="d1")
    added = BODY.replace(b'"m/x"', b'"m/x", "tools": []')
    assert (await gateway.run("a2", "a1", added, body_digest="d1"))["id"] == "chatcmpl-a1"
    with pytest.raises(InvalidError, match="Send the same body"):
        await gateway.run("a3", "a1", added, body_digest="d2")


async def test_each_model_request_has_the_client_s_cache_control() -> None:
    gateway = Gateway([])
    await gateway.run(cache="no-store")
    assert json.loads(gateway.chain.requests[0].extra)["cache"] == "no-store"


async def test_tools_that_are_no_longer_automatic_are_the_client_s_in_the_next_turn() -> None:
    gateway = Gateway([["say"], ["count"]])

    def change(call: CallRequested) -> None:
        if call.tool == "say":
            declared = gateway.directory.now.configuration
            keys = {n: k.model_copy(update={"auto_execute": ()}) for n, k in declared.keys.items()}
            changed = declared.model_copy(update={"keys": keys})
            gateway.directory.projection.apply_change(configuration_change(changed))

    gateway.chain.after = change
    response = await gateway.run()
    assert response["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "count"
    assert gateway.chain.executed == ["say {}"]
