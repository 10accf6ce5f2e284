"""Hostile programs, forbidden system calls, forged messages, and latency (`make bench-sandbox`).

Everything runs in the sandbox that the service uses. Run it on an idle machine: the overhead is a
latency.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import socket
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

from figures import console, keep, met, row, show
from sandbox_programs import CANARY, Hostile, corpus
from toolbus_codemode.sandbox.program import (
    Engine,
    Failure,
    Function,
    Namespace,
    Program,
    ProgramResult,
    ToolCall,
    ToolOutcome,
)
from toolbus_codemode.sandbox.sandbox import Sandbox, SandboxSettings
from toolbus_codemode.sandbox.session import BrokenError, Session

HERE = Path(__file__).parent
OVERRUN = 0.3
CONCURRENT = 100
PAUSE: dict[Engine, float] = {"starlark": 0.03, "python": 0.15}
FORGED = 500
# figure -> its maximum
DEMANDS: dict[str, float] = {
    "escapes": 0,
    "parent_crashes": 0,
    "overruns": 0,
    "syscalls_survived": 0,
    "forged_believed": 0,
    "concurrent_failures": 0,
    "starlark_p50_ms": 5.0,
    "starlark_p99_ms": 10.0,
    "python_p50_ms": 5.0,
    "python_p99_ms": 10.0,
}
TOOLS = (
    Namespace(
        "gh",
        "github",
        tuple(Function(name, name, ("n",)) for name in ("read", "broken", "slow", "large")),
    ),
    Namespace("fs", "files", (Function("list", "list", ("path",)),)),
)
GRANTED = {(space.server, each.tool) for space in TOOLS for each in space.functions}


class Tools:
    """The tools behind the programs; they record calls that were not granted."""

    def __init__(self) -> None:
        self.ungranted: list[ToolCall] = []

    async def call(self, request: ToolCall) -> ToolOutcome:
        """Answer one call: fast, slow, failing, broken with a secret in its text, or large."""
        if (request.server, request.tool) not in GRANTED:
            self.ungranted.append(request)
        if request.tool == "broken":
            raise ValueError(CANARY)
        if request.tool == "slow":
            await asyncio.sleep(0.3)
        if request.tool == "large":
            return ToolOutcome("x" * min(int(request.arguments["n"]) * 100, 20 << 20))
        if request.tool == "list":
            return ToolOutcome(failure=Failure("denied", "Not for you."))
        return ToolOutcome({"n": request.arguments.get("n")})


def leaked(ended: ProgramResult) -> bool:
    """Return whether a program's output contains the canary."""
    return CANARY in repr(ended)


async def hostile(sandbox: Sandbox, programs: list[Hostile]) -> dict[str, Any]:
    """Run all hostile programs and count the violations."""
    tools = Tools()
    ends: list[tuple[Hostile, ProgramResult]] = []

    before = {launcher.module: launcher.process for launcher in sandbox.launchers.values()}
    for each in programs:  # one at a time, so that an overrun is the sandbox's own
        program = Program(each.source, each.engine, TOOLS, each.limits)
        ends.append((each, await sandbox.run(program, tools.call)))
    after = {launcher.module: launcher.process for launcher in sandbox.launchers.values()}
    over = [
        (each.family, each.engine, each.source[:60], round(ended.seconds, 3))
        for each, ended in ends
        if ended.seconds > each.limits.deadline + OVERRUN
    ]
    escaped = [each.source[:80] for each, ended in ends if leaked(ended)]
    names = Counter(
        f"{each.engine} {ended.error.name if ended.error else 'ok'}" for each, ended in ends
    )
    return {
        "programs": len(ends),
        "ends": dict(sorted(names.items())),
        "escapes": len(escaped) + len(tools.ungranted),
        "escaped": escaped,
        "overruns": len(over),
        "overran": over,
        "longest_seconds": max(ended.seconds for _, ended in ends),
        "parent_crashes": sum(before[module] is not after[module] for module in before),
    }


def forgeries(chance: random.Random) -> list[bytes]:
    """Return messages that no child process sends."""
    call = {"id": 1, "namespace": "gh", "function": "read", "arguments": {}}
    shapes: tuple[Any, ...] = (
        {"type": "Calls", "calls": []},
        {"type": "Calls", "calls": [call | {"function": "secret"}]},
        {"type": "Calls", "calls": [call | {"namespace": "billing"}]},
        {"type": "Calls", "calls": [call] * 10_000},
        {"type": "Calls", "calls": [call | {"server": "github"}]},
        {"type": "Start", "source": "1"},
        {"type": "Outcomes", "outcomes": []},
        {"type": "Done"},
        {"type": "Failed", "name": 5, "message": ""},
        [],
        None,
    )
    bodies = [json.dumps(shape).encode() for shape in shapes]
    bodies.append(b'{"type":"Calls","calls":' + b"[" * 100_000)
    framed = [len(body).to_bytes(4, "big") + body for body in bodies]
    framed += [b"\xff\xff\xff\xff" + b"x" * 100, b"\0\0", b"\0\0\0\0"]
    framed += [chance.randbytes(chance.randrange(1, 4096)) for _ in range(FORGED - len(framed))]
    return framed


async def send(theirs: socket.socket, message: bytes) -> None:
    """Send a message; the other side may close the connection first."""
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_sendall(theirs, message)
        theirs.shutdown(socket.SHUT_WR)


async def believed(message: bytes) -> bool:
    """Return whether a forged message called a tool or passed for a program's successful end."""
    tools = Tools()
    made: list[ToolCall] = []

    async def call(request: ToolCall) -> ToolOutcome:
        made.append(request)
        return await tools.call(request)

    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    talk = Session(Program("1", tools=TOOLS), call, reader, writer)
    theirs.settimeout(0)
    sending = asyncio.create_task(send(theirs, message))
    try:
        received = await talk.hold()
    except BrokenError:
        received = None
    writer.transport.abort()
    await sending
    theirs.close()
    return bool(made) or getattr(received, "value", None) is not None


async def syscalls() -> dict[str, Any]:
    """Try forbidden system calls from native code in a separate process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "sandbox_syscalls.py"), stdout=asyncio.subprocess.PIPE
    )
    result, _ = await process.communicate()
    found: dict[str, Any] = json.loads(result)
    return found


async def overhead(sandbox: Sandbox, engine: Engine, runs: int) -> dict[str, float]:
    """Measure the smallest program from request to result, one at a time."""
    taken = []
    for _ in range(runs):
        began = perf_counter()
        ended = await sandbox.run(Program("1 + 1", engine), Tools().call)
        taken.append(1000 * (perf_counter() - began))
        if ended.value != 1 + 1:
            raise RuntimeError(f"1 + 1 ended as {ended}")
        await asyncio.sleep(PAUSE[engine])  # the next spare process is being started
    cuts = statistics.quantiles(taken, n=100)
    return {f"{engine}_p50_ms": cuts[49], f"{engine}_p99_ms": cuts[98]}


async def concurrent(sandbox: Sandbox, engine: Engine) -> tuple[int, float]:
    """Run programs at once, each with a call; return how many failed, and the time."""
    program = Program("gh.read(n=3)['n']" if engine == "starlark" else "(await gh.read(n=3))['n']")
    program = Program(program.source, engine, TOOLS)
    began = perf_counter()
    ends = await asyncio.gather(*(sandbox.run(program, Tools().call) for _ in range(CONCURRENT)))
    return sum(ended.value != 3 for ended in ends), perf_counter() - began


async def measured(runs: int) -> dict[str, Any]:
    """Return all figures."""
    os.environ["TOOLBUS_CANARY"] = CANARY
    figures: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    with tempfile.NamedTemporaryFile("w") as canary:
        canary.write(CANARY)
        canary.flush()
        os.fchmod(canary.fileno(), 0o644)
        sandbox = Sandbox(SandboxSettings(max_runs=128))
        await sandbox.start()
        figures["protections"] = [
            [each.engine, each.name, each.in_force] for each in sandbox.protections
        ]
        for engine in ("starlark", "python"):
            figures |= await overhead(sandbox, engine, runs)
        failures = {engine: await concurrent(sandbox, engine) for engine in ("starlark", "python")}
        figures["concurrent_failures"] = sum(failed for failed, _ in failures.values())
        figures["concurrent_seconds"] = {engine: took for engine, (_, took) in failures.items()}
        figures |= await hostile(sandbox, list(corpus(canary.name)))
        await sandbox.close()
    tried = await syscalls()
    figures["syscalls_tried"] = tried["tried"]
    figures["syscalls_survived"] = len(tried["survivors"])
    figures["survivors"] = tried["survivors"]
    messages = forgeries(random.Random(7))
    figures["forged"] = len(messages)
    figures["forged_believed"] = sum([await believed(message) for message in messages])
    return figures


def main() -> None:
    """Run the benchmark and store the figures; return 1 if a demand is not met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=500)
    logging.disable(logging.ERROR)  # the tools fail on purpose
    figures = asyncio.run(measured(parser.parse_args().runs))
    rows = [row(name, figures[name], "<=", most) for name, most in DEMANDS.items()]
    show(rows)
    keep("sandbox", figures)
    console.print(
        {name: figures[name] for name in ("programs", "syscalls_tried", "forged", "ends")}
    )
    sys.exit(not met(rows))


if __name__ == "__main__":
    main()
