"""Overhead of the sandbox for a program, and of a call inside a program."""

import asyncio
import statistics
from contextlib import closing
from time import perf_counter
from typing import Any

from scripted.gateway import Stage
from scripted.mcp_client import Speaker
from toolbus_codemode.sandbox.program import Program, ToolCall, ToolOutcome
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings

RUNS, ROUNDS, INNER = 200, 30, 50
GET = "crm__get_customer", {"id": "customer-0007"}
LOOP = (
    f"for _ in range({INNER}):\n    got = crm.get_customer(id='customer-0007')\nresult = got['id']"
)


def overhead(stage: Stage, size: int) -> dict[str, float]:
    """Return all figures in milliseconds."""
    runs = asyncio.run(_runs())
    return {
        "sandbox_p50_ms": statistics.median(runs),
        "sandbox_p99_ms": statistics.quantiles(runs, n=100)[98],
        **_calls(stage, size),
    }


async def _runs() -> list[float]:
    """Measure empty programs one after the other, each in its own process."""
    sandbox = Sandbox(SandboxSettings(engines=("starlark",)))
    await sandbox.start()
    try:
        return [await _run(sandbox) for _ in range(RUNS)]
    finally:
        await sandbox.close()


async def _run(sandbox: Sandbox) -> float:
    began = perf_counter()
    ended = await sandbox.run(Program("result = 1"), _uncalled)
    took = (perf_counter() - began) * 1000
    if ended.value != 1:
        raise SystemExit(f"the sandbox does not run: {ended.error}")
    return took


async def _uncalled(_call: ToolCall) -> ToolOutcome:
    return ToolOutcome()


def _calls(stage: Stage, size: int) -> dict[str, float]:
    """Measure plain calls, a program without a call and one with many, in turns."""
    plain, empty, inner = [], [], []
    with (
        closing(stage.speaker(size, "tools")) as tools,
        closing(stage.speaker(size, "code")) as code,
    ):
        for _ in range(ROUNDS):
            plain.append(statistics.median(_timed(tools, *GET) for _ in range(INNER)))
            empty.append(_timed(code, "executeToolCode", {"code": "result = 1"}))
            full = _timed(code, "executeToolCode", {"code": LOOP})
            inner.append((full - empty[-1]) / INNER)
    rounds = list(zip(inner, plain, strict=True))
    return {
        "plain_call_p50_ms": statistics.median(plain),
        "empty_program_p50_ms": statistics.median(empty),
        "inner_call_ms": statistics.median(inner),
        "inner_over_plain_ms": statistics.median(each - before for each, before in rounds),
        "inner_to_plain": statistics.median(each / before for each, before in rounds),
    }


def _timed(speaker: Speaker, tool: str, arguments: dict[str, Any]) -> float:
    began = perf_counter()
    text, failed = speaker.call(tool, arguments)
    took = (perf_counter() - began) * 1000
    if failed:
        raise SystemExit(f"{tool} failed: {text}")
    return took
