"""Calls directly to an upstream and through Toolbus, with checked replies (`make bench`).

Key, grant, budget, rate limit, durable intent, settlement and audit are all on. CPU per call is
that of every Toolbus process with NATS and Valkey, counted until the last event of the load is a
row in ClickHouse. The load generator and the upstream share the machine and are not counted.
"""

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from rich.table import Table

from figures import console, keep
from load import Plan
from processes import cpu_seconds, family, name_of, resident_mb
from rules import rules

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
SECRET = "tbk_bench_" + "0123456789abcdef" * 2
# a key that sees one tool, as agents with a session do
AGENT_SECRET = "tbk_agent_" + "0123456789abcdef" * 2
VERSION = "2026-07-28"
OWNERS = """
customers: {acme: {budget: {usd: 1000000, per: month}}}
teams: {ops: {customer: acme, budget: {usd: 1000000, per: month}}}
users: {ann: {customer: acme, budget: {usd: 1000000, per: month}}}
"""
# figure -> (fused, separate, whether less is better); None: no demand in this mode.
# Machines differ, so throughput and CPU are relative to the direct calls of the same round.
DEMANDS: dict[str, tuple[float, float | None, bool]] = {
    "ratio_to_direct": (0.17, None, False),
    "cost_in_direct_calls": (8.5, 12.0, True),
    "added_p50_ms": (0.7, 1.4, True),
    "p99_to_p50": (1.6, None, True),
    "sessions_per_second": (1200.0, None, False),
    "list_p50_ms": (5.0, 5.0, True),
    "ready_seconds": (5.0, 5.0, True),
    "idle_rss_mb": (900.0, 900.0, True),
}
SHOWN = (
    "direct_per_second", "calls_per_second", "cpu_us_per_call", "direct_p50_ms", "through_p50_ms",
    "p50_64_ms", "p99_64_ms", "direct_p99_to_p50", "sessions_with_stream_per_second",
)  # fmt: skip


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rules", type=int, default=0, help="number of declared Cedar rules")
    parser.add_argument("--mode", choices=("fused", "separate", "both"), default="both")
    options = parser.parse_args()
    modes = ("fused", "separate") if options.mode == "both" else (options.mode,)
    report: dict[str, Any] = {"machine": machine()}
    report["rules"] = options.rules
    for mode in modes:
        report[mode] = _measure(mode, options)
        _show(mode, report[mode])
    keep("spine", report)
    return 0 if all(_met(mode, report[mode]) for mode in modes) else 1


def _measure(mode: str, options: argparse.Namespace) -> dict[str, Any]:
    with echoing() as echo_port, gateway(mode, echo_port, options.rules) as up:
        figures = _figures(up, echo_port, options.rounds, options.seconds)
        return figures | {"ready_seconds": up.ready_seconds}


@dataclass(frozen=True)
class Gateway:
    """A `toolbus up` of the benchmark."""

    pid: int
    endpoint: str
    ready_seconds: float


@contextmanager
def echoing(tools: int = 500) -> Iterator[int]:
    """Run an upstream that answers at once and yield its port; `tools` are those besides echo."""
    port = free_port()
    echo = _start([str(HERE / "echo_upstream.py"), "--port", str(port), "--tools", str(tools)])
    try:
        yield port
    finally:
        end(echo)


@contextmanager
def gateway(
    mode: str, echo_port: int, declared_rules: int, *, levels: int = 1, more: str = ""
) -> Iterator[Gateway]:
    """Run `toolbus up` over that upstream with Cedar rules; print its log if it fails.

    The measured key has a budget, and with four `levels` its user, team and customer too. `more`
    is appended to the configuration; the measured key may use every model in it.
    """
    with tempfile.TemporaryDirectory(prefix="toolbus-bench-") as name:
        directory = Path(name)
        config, ready_file, port = directory / "toolbus.yaml", directory / "ready", free_port()
        declared = {name: {"cedar": text} for name, text in rules(declared_rules).items()}
        owners = OWNERS if levels > 1 else ""
        configuration = _configuration(echo_port, owners)
        config.write_text(f"{configuration}rules: {json.dumps(declared)}\n{more}")
        command = ["-m", "toolbus_cli.main", "up", "-c", str(config), "--port", str(port)]
        command += ["--state-dir", str(directory / "state"), "--ready-file", str(ready_file)]
        began = monotonic()
        with (directory / "log").open("wb") as log:
            up = _start([*command, *([] if mode == "fused" else [f"--{mode}"])], log)
            try:
                _wait(ready_file.exists, 30, f"toolbus up is not ready: {directory / 'log'}")
                ready, endpoint = monotonic() - began, f"http://127.0.0.1:{port}/mcp"
                _wait(lambda: _answers(endpoint), 15, "the echo tool is not listed")
                yield Gateway(up.pid, endpoint, ready)
            except BaseException:
                console.print((directory / "log").read_text()[-4000:])
                raise
            finally:
                end(up)


def processes_of(up: Gateway) -> list[int]:
    """Return the processes whose CPU belongs to a call."""
    return [pid for pid in family(up.pid) if not name_of(pid).startswith("echo")]


def _figures(up: Gateway, echo_port: int, rounds: int, seconds: float) -> dict[str, Any]:
    sleep(2)
    pids, endpoint = processes_of(up), up.endpoint
    figures: dict[str, Any] = {"idle_rss_mb": resident_mb(pids), "rounds": []}
    direct = f"http://127.0.0.1:{echo_port}/mcp"
    for number in range(rounds):
        seen = {
            "direct_1": call_load(direct, "echo", "", 1, seconds / 2),
            "direct_64": call_load(direct, "echo", "", 64, seconds / 2),
            "through_1": call_load(endpoint, "echo__echo", SECRET, 1, seconds / 2),
            "list_1": call_load(endpoint, "", SECRET, 1, seconds / 2),
            "sessions": session_load(endpoint, seconds / 2, stream=False),
            "sessions_with_stream": session_load(endpoint, seconds / 2),
        }
        seen["through_64"] = counted(pids, endpoint, seconds)
        figures["rounds"].append(seen)
        console.print(
            f"round {number + 1}: direct {seen['direct_64']['per_second']:,.0f}/s, "
            f"through {seen['through_64']['per_second']:,.0f}/s"
        )
    return figures | _medians(figures["rounds"])


def counted(pids: list[int], endpoint: str, seconds: float) -> dict[str, Any]:
    """Return the load at concurrency 64, and each process's CPU until all events are rows."""
    before = {pid: cpu_seconds(pid) for pid in pids}
    seen = call_load(endpoint, "echo__echo", SECRET, 64, seconds)
    quiet(pids)
    used = {pid: cpu_seconds(pid) - before[pid] for pid in pids}
    calls = seen["all_requests"]
    by_name: dict[str, float] = {}
    for pid, cpu in used.items():
        by_name[name_of(pid)] = by_name.get(name_of(pid), 0.0) + cpu / calls * 1e6
    seen["cpu_us_by_process"] = {name: round(us, 1) for name, us in sorted(by_name.items())}
    seen["cpu_us_per_call"] = sum(used.values()) / calls * 1e6
    return seen


def quiet(pids: list[int]) -> None:
    """Wait until audit and settlement have caught up: until a second uses almost no CPU."""
    for _ in range(30):
        before = sum(map(cpu_seconds, pids))
        sleep(1)
        if sum(map(cpu_seconds, pids)) - before < 0.08:
            return


def call_load(
    url: str,
    tool: str,
    key: str,
    connections: int,
    seconds: float,
    arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the figures of a load of tool calls, or of `tools/list` without a tool.

    `arguments` are those of another tool than echo; the answer must then contain its marker.
    """
    method = "tools/call" if tool else "tools/list"
    given = arguments or {"text": "@@@@@@@@ bench"}
    params: dict[str, Any] = {"name": tool, "arguments": given} if tool else {}
    params["_meta"] = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"MCP-Protocol-Version": VERSION, "Mcp-Method": method}
    plan = Plan(
        url=url,
        key=key,
        body=json.dumps(body, separators=(",", ":")),
        headers=headers | ({"Mcp-Name": tool} if tool else {}),
        expect=(" bench" if arguments else ' bench"') if tool else '"tools":[',
        connections=connections,
        seconds=seconds,
        exact=bool(tool) and not arguments,
    )
    result = subprocess.run(
        [sys.executable, str(HERE / "load.py")],
        input=json.dumps(asdict(plan)).encode(),  # its body may be too long for an argument
        capture_output=True,
        check=True,
        timeout=seconds + 60,
    )
    seen: dict[str, Any] = json.loads(result.stdout)
    if seen["wrong"]:
        raise SystemExit(f"{seen['wrong']} wrong answers from {url}: {seen['example']}")
    return seen


def session_load(url: str, seconds: float, *, stream: bool = True) -> dict[str, Any]:
    """Return the figures of a load of sessions, each with its own stream or without."""
    plan = {
        "url": url, "key": AGENT_SECRET, "tool": "echo__echo",
        "seconds": seconds, "stream": stream,
    }  # fmt: skip
    command = [sys.executable, str(HERE / "sessions.py"), json.dumps(plan)]
    result = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 60)
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


def _medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    def median(load: str, figure: str) -> float:
        return float(statistics.median(seen[load][figure] for seen in rounds))

    def ratio(quantity: Callable[[dict[str, Any]], float]) -> float:
        return float(statistics.median(map(quantity, rounds)))

    return {
        "direct_per_second": median("direct_64", "per_second"),
        "calls_per_second": median("through_64", "per_second"),
        "cpu_us_per_call": median("through_64", "cpu_us_per_call"),
        "ratio_to_direct": ratio(
            lambda seen: seen["through_64"]["per_second"] / seen["direct_64"]["per_second"]
        ),
        # CPU of a call over all processes, in the time of a direct call
        "cost_in_direct_calls": ratio(
            lambda seen: (
                seen["through_64"]["cpu_us_per_call"] / 1e6 * seen["direct_64"]["per_second"]
            )
        ),
        "p99_to_p50": ratio(
            lambda seen: seen["through_64"]["p99_ms"] / seen["through_64"]["p50_ms"]
        ),
        # Of the direct calls: the load generator and the upstream share the machine.
        "direct_p99_to_p50": ratio(
            lambda seen: seen["direct_64"]["p99_ms"] / seen["direct_64"]["p50_ms"]
        ),
        "direct_p50_ms": median("direct_1", "p50_ms"),
        "through_p50_ms": median("through_1", "p50_ms"),
        "added_p50_ms": median("through_1", "p50_ms") - median("direct_1", "p50_ms"),
        "p50_64_ms": median("through_64", "p50_ms"),
        "p99_64_ms": median("through_64", "p99_ms"),
        "list_p50_ms": median("list_1", "p50_ms"),
        "sessions_per_second": median("sessions", "per_second"),
        "sessions_with_stream_per_second": median("sessions_with_stream", "per_second"),
    }


def _met(mode: str, figures: dict[str, Any]) -> bool:
    return all(_meets(mode, name, figures[name]) for name in DEMANDS)


def _meets(mode: str, name: str, value: float) -> bool:
    demand, less = _demand(mode, name)
    return demand is None or (value <= demand if less else value >= demand)


def _demand(mode: str, name: str) -> tuple[float | None, bool]:
    fused, separate, less = DEMANDS[name]
    return (fused if mode == "fused" else separate), less


def _show(mode: str, figures: dict[str, Any]) -> None:
    table = Table(title=f"Toolbus {mode}, medians of {len(figures['rounds'])} rounds")
    for column in ("figure", "measured", "demanded", ""):
        table.add_column(column)
    for name in DEMANDS:
        demand, less = _demand(mode, name)
        verdict = "met" if _meets(mode, name, figures[name]) else "[bold red]missed[/]"
        text = f"{'≤' if less else '≥'} {demand:g}" if demand is not None else ""
        table.add_row(name, f"{figures[name]:,.2f}", text, verdict if text else "")
    for name in SHOWN:
        table.add_row(name, f"{figures[name]:,.2f}", "", "")
    console.print(table)
    last = figures["rounds"][-1]["through_64"]["cpu_us_by_process"]
    console.print("CPU µs per call:", ", ".join(f"{name} {us}" for name, us in last.items()))


def _configuration(echo_port: int, owners: str = "") -> str:
    return f"""{owners}
servers:
  echo: {{url: "http://127.0.0.1:{echo_port}/mcp"}}
keys:
  bench: {{secret: "{SECRET}", {"team: ops, user: ann," if owners else ""} tools: ["echo__*"],
          models: ["*"],
          budget: {{usd: 1000000, per: month}}, rate: {{calls: 100000000, per: minute}}}}
  agent: {{secret: "{AGENT_SECRET}", tools: ["echo__echo"],
          budget: {{usd: 1000000, per: month}}, rate: {{calls: 100000000, per: minute}}}}
prices: {{"echo__echo": 0.001}}
"""


def _answers(endpoint: str) -> bool:
    try:
        call_load(endpoint, "echo__echo", SECRET, 1, 0.1)
    except (SystemExit, subprocess.SubprocessError):
        return False
    return True


def _start(command: list[str], log: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process; kill it if it does not end in time."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()


def _wait(condition: Any, seconds: float, complaint: str) -> None:
    give_up = monotonic() + seconds
    while not condition():
        if monotonic() > give_up:
            raise SystemExit(complaint)
        sleep(0.02)


def free_port() -> int:
    """Return a TCP port of this machine that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "os": platform.release()}


if __name__ == "__main__":
    sys.exit(main())
