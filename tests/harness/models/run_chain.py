"""Codemode with a bucket in memory, and a chain that makes each call once per idempotency key."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from time import time
from types import SimpleNamespace
from typing import Any, cast

from harness.builders.calls import admitted_call
from harness.builders.configurations import configuration_change
from toolbus_codemode.agent.runs import AgentRuns
from toolbus_common.access.config_snapshot import ConfigView, hash_of
from toolbus_common.access.session_owner import principal_id_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    CallAdmitted,
    CallRequested,
    CallResult,
    Event,
    FinalReply,
    Notification,
    RunsRequest,
)
from toolbus_common.contracts.agent_runs import AGENT, AGENT_RUN, AgentCall
from toolbus_common.contracts.model_calls import CHAT, REPORT, ModelReport, is_model_method
from toolbus_common.contracts.replies import DeadlineExtended
from toolbus_common.errors import (
    BusDownError,
    RunBudgetExceededError,
    ToolbusError,
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
        self.read: list[str] = []
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
        wanted = pattern.split(".")
        return [
            Change(key, value, revision)
            for key, (revision, value) in self.entries.items()
            if len(wanted) == len(parts := key.split("."))
            and all(each in ("*", part) for each, part in zip(wanted, parts, strict=True))
        ]

    async def batches(self, pattern: str) -> AsyncGenerator[list[Change]]:
        for change in await self.present(pattern):
            self.read.append(change.key)
            yield [change]


class Chain:
    """Policy, executor and the servers. `executed` has the tool calls that ran."""

    def __init__(self, script: list[list[str]]) -> None:
        self.script = script
        self.executed: list[str] = []
        self.replies: dict[str, FinalReply] = {}
        self.programs: list[CodeModeOptions] = []
        self.requests: list[CallRequested] = []
        self.outcomes: dict[str, FinalReply] = {}
        self.result, self.final_reports = "", True
        self.before: Hook = lambda _call: None
        self.after: Hook = lambda _call: None
        self.cancelled: list[str] = []
        self.events: list[Event] = []
        self._ids = itertools.count(1)

    def service(self) -> Any:
        """Return the service of codemode."""
        calls = SimpleNamespace(
            new_call_id=lambda: f"{next(self._ids):x}", address=lambda call: f"tb.reply.{call}",
            request=self.request, request_detached=self.request, cancel=self._cancel,
            spawn=self.spawn,
        )  # fmt: skip
        events = SimpleNamespace(publish=self.events.append)
        return SimpleNamespace(calls=calls, events=events, spawn=self.spawn)

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
            text = {"content": [{"type": "text", "text": self.result or f"did {call.tool}"}]}
            self.outcomes[call.idempotency_key] = CallResult(json.dumps(text).encode())
        self.after(call)
        return self.outcomes[call.idempotency_key]

    def _answer(self, call: CallRequested, receive: Any) -> FinalReply:
        if call.max_charge is not None and call.max_charge < BOUND:
            raise RunBudgetExceededError("too much")
        self.requests.append(call)
        receive(Notification(REPORT, ModelReport(BOUND).encode()))
        self.after(call)
        if self.final_reports:
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

    async def _cancel(self, call_id: str) -> None:
        self.cancelled.append(call_id)


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
                "models": {"either": [{"provider": "m", "model": name} for name in ("x", "y")]},
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
        self,
        call_id: str = "a1",
        resumed: str = "",
        body: bytes = BODY,
        model: str = "m/x",
        **fields: Any,
    ) -> Any:
        """Run a request, and return its response."""
        call = self.call(call_id, resumed, body, model, **fields)
        principal = self.directory.now.principal_for(DIGEST, time())
        assert principal
        return json.loads((await self.runs.run(call, principal, cast("Any", Context()))).body)

    def call(
        self, call_id: str, resumed: str, body: bytes, model: str = "m/x", **fields: Any
    ) -> CallAdmitted:
        agent_call = AgentCall(CHAT, model, names=NAMES, resumed=resumed, **fields)
        return admitted_call(
            call_id=call_id, server=BUILT_IN, tool=AGENT, method=AGENT_RUN, key="bot",
            key_digest=DIGEST, principal_id=self.owner(), extra=agent_call.encode(), arguments=body,
            deadline=time() + 60,
        )  # fmt: skip

    def owner(self) -> str:
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
