"""Limits of one run of agent mode, and what counts against them (no I/O)."""

from collections import Counter
from contextlib import suppress
from hashlib import sha256

import msgspec
from msgspec import Struct, field

from toolbus_codemode.agent.dialects.base import Suggested
from toolbus_common.config import MICRO
from toolbus_common.config.access.agent_mode import AgentMode
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.mcp.code_mode_options import CodeModeOptions, RunTerms

_canonical = msgspec.json.Encoder(order="deterministic").encode


class Reached(Struct, frozen=True):
    """A reached limit: its name in the configuration, and a sentence for the caller."""

    limit: str
    note: str


class Used(Struct):
    """What a run has used. `cost` is in micro-dollars, and `seconds` is the time of its requests.

    `held` is the most that the model request in progress can cost; None if it is not known.
    `by_tool` counts the calls by full name, and `repeats` counts them by tool and arguments.
    """

    turns: int = 0
    calls: int = 0
    cost: int = 0
    tokens: int = 0
    seconds: float = 0.0
    asking: bool = False
    held: int | None = None
    by_tool: dict[str, int] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)

    def settle_interrupted(self, limits: AgentMode) -> None:
        """Count a model request that was interrupted, at the most that it can have cost.

        If this amount is not known, count all that the limit `usd` leaves.
        """
        if self.asking:
            left = self.left(limits) or 0
            self.cost += left if self.held is None else self.held
            self.asking, self.held = False, None

    def left_to_program(self, limits: AgentMode) -> CodeModeOptions:
        """Return the options of a program: the calls left in the run, and those already made."""
        run = RunTerms(limits.calls_per_tool, dict(self.by_tool))
        return CodeModeOptions(Mode.CODE, calls=max(0, limits.calls - self.calls), run=run)

    def count_program(self, calls: int, by_tool: dict[str, int]) -> None:
        """Count the calls that a program has made."""
        self.calls += calls
        for name, number in by_tool.items():
            self.by_tool[name] = self.by_tool.get(name, 0) + number

    def left(self, limits: AgentMode) -> int | None:
        """Return the amount that the run can still spend; None without a limit."""
        if limits.usd is None:
            return None
        return max(0, int(round(limits.usd * MICRO, 3)) - self.cost)


def before_turn(limits: AgentMode, used: Used) -> Reached | None:
    """Return the limit that forbids another model request; None if there is none."""
    if used.turns >= limits.turns:
        return _reached("turns", f"{limits.turns} model requests")
    if limits.tokens is not None and used.tokens >= limits.tokens:
        return _reached("tokens", f"{limits.tokens} tokens")
    if used.left(limits) == 0 and limits.usd:
        return _reached("usd", f"${limits.usd:g}")
    if used.seconds >= limits.seconds:
        return _reached("seconds", f"{limits.seconds:g} seconds")
    return None


def count_calls(
    limits: AgentMode, used: Used, calls: list[tuple[str, Suggested]]
) -> Reached | None:
    """Count calls, each with the full name of its tool, before they are made.

    Return the limit that forbids them; nothing is counted then, because none of them is made.
    """
    by_tool, repeats = Counter(used.by_tool), Counter(used.repeats)
    for name, call in calls:
        by_tool[name] += 1
        repeats[_digest(name, call.arguments)] += 1
    if used.calls + len(calls) > limits.calls:
        return _reached("calls", f"{limits.calls} tool calls")
    name, most = max(by_tool.items(), key=lambda each: each[1], default=("", 0))
    if most > limits.calls_per_tool:
        return _reached("calls_per_tool", f"{limits.calls_per_tool} calls of '{name}'")
    if max(repeats.values(), default=0) > limits.repeats:
        what = f"{limits.repeats} calls of one tool with the same arguments"
        return _reached("repeats", what)
    used.calls += len(calls)
    used.by_tool, used.repeats = dict(by_tool), dict(repeats)
    return None


def run_budget(limits: AgentMode) -> Reached:
    """Return the reached limit `usd`, for a run whose next model request would exceed it."""
    return _reached("usd", f"${limits.usd or 0:g}")


def out_of_time(limits: AgentMode) -> Reached:
    """Return the reached limit `seconds`, which ended a step of the run."""
    return _reached("seconds", f"{limits.seconds:g} seconds")


def _reached(limit: str, what: str) -> Reached:
    note = (
        f"[The run ended: it reached its limit of {what} ('agent.{limit}' of the key). Send "
        "another request to continue, or ask an operator to raise the limit.]"
    )
    return Reached(limit, note)


def _digest(name: str, arguments: str) -> str:
    # A text that is not JSON makes the call fail. It is compared as it is.
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        arguments = _canonical(msgspec.json.decode(arguments or "{}")).decode()
    return sha256(f"{name}\0{arguments}".encode(errors="surrogatepass")).hexdigest()[:32]
