"""Model requests: directly, through Toolbus, and through LiteLLM's proxy (`make bench-models`).

The provider is a mock that answers at once, or streams 200 parts as fast as it can. Toolbus has a
key, a grant, a budget, a price, the durable intent, settlement and audit on; LiteLLM's proxy has a
master key. All run at the same time and are measured in turn, and every reply is checked. A tool
call of `make bench` is measured on the same gateway. CPU is that of all processes of a gateway (for
Toolbus with NATS, Valkey and the audit writer) until its last event is a row; the load generator
and the provider are not counted. The CPU of a streamed part is what a stream costs more than a
request without a stream, divided by the parts.
"""

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import sleep
from typing import Any

from rich.table import Table

from figures import Row, console, keep, load, met, row, show
from load import Plan
from memory import TOTAL, memory
from model_load import Plan as StreamPlan
from peers import installed, running, version
from processes import cpu_seconds, family
from run import (
    SECRET,
    Gateway,
    call_load,
    echoing,
    end,
    free_port,
    gateway,
    machine,
    processes_of,
    quiet,
)

HERE = Path(__file__).parent
PROVIDER = HERE.parent / "tests" / "harness" / "models" / "provider_program.py"
CHUNKS, BUSY, ONE = 200, 32, 1
MODEL, STREAMED = "mock", f"mock:chunks={CHUNKS}"
DIRECT, TOOLBUS, LITELLM = "direct", "Toolbus", "LiteLLM"
MAX_GROWTH = 1.05  # of memory, from a fifth of the requests to all of them
SHORT, WHOLE = 10_000, 100_000  # requests for the memory
SETTLE_SECONDS = 10.0  # allocators return freed memory after some seconds
Figures = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What is measured. `url` is its chat endpoint, and `pids` are its processes."""

    name: str
    url: str
    prefix: str = ""
    key: str = ""
    pids: tuple[int, ...] = ()
    note: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """The headers of a request."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument(
        "--requests",
        type=int,
        default=SHORT,
        help=f"requests for the memory, or 0; the demand is for {WHOLE:,}",
    )
    parser.add_argument("--mode", choices=("fused", "separate"), default="fused")
    parser.add_argument("--without", nargs="*", default=(), choices=(LITELLM,))
    options = parser.parse_args()
    header = {"machine": machine(), "asked": vars(options), "before": load()}
    with ExitStack() as stack:
        provider = stack.enter_context(_provider())
        echo = stack.enter_context(echoing(0))
        up = stack.enter_context(_toolbus(options.mode, echo, provider))
        targets = [Target(DIRECT, _chat(provider)), _of_toolbus(up)]
        if LITELLM not in options.without:
            targets.append(stack.enter_context(_litellm(provider)))
        rounds = [_round(targets, up, options.seconds) for _ in range(options.rounds)]
        medians = _medians(rounds)
        rows = _rows(medians)
        if options.requests:
            rows += _memory_rows(up, targets[1], options.requests)
    _table(targets, medians)
    show(rows)
    keep("models", header | {"after": load(), "rounds": rounds, "medians": medians, "rows": rows})
    return 0 if met(rows) else 1


def _round(targets: list[Target], up: Gateway, seconds: float) -> Figures:
    seen: Figures = {}
    for each in targets:
        seen[each.name] = {
            "one": _plain(each, ONE, seconds / 2),
            "stream_one": _streamed(each, ONE, seconds / 2),
            "busy": _with_cpu(each.pids, lambda each=each: _plain(each, BUSY, seconds)),  # type: ignore[misc]
            "stream_busy": _with_cpu(
                each.pids,
                lambda each=each: _streamed(each, BUSY, seconds),  # type: ignore[misc]
            ),
        }
        figures = seen[each.name]
        console.print(
            f"{each.name}: {figures['busy']['per_second']:,.0f} requests/s, "
            f"{figures['stream_busy']['per_second'] * CHUNKS:,.0f} streamed parts/s"
        )
    pids = tuple(processes_of(up))
    seen["tool"] = _with_cpu(
        pids, lambda: call_load(up.endpoint, "echo__echo", SECRET, BUSY, seconds)
    )
    return seen


def _with_cpu(pids: tuple[int, ...], measure: Callable[[], Figures]) -> Figures:
    """Return the figures of a load and the CPU per request until all its events are rows."""
    before = sum(map(cpu_seconds, pids))
    seen = measure()
    if pids:
        quiet(list(pids))
        used = sum(map(cpu_seconds, pids)) - before
        seen["cpu_us"] = used / seen["all_requests"] * 1e6
    else:
        seen["cpu_us"] = 0.0
    return seen


def _plain(target: Target, connections: int, seconds: float) -> Figures:
    messages = [{"role": "user", "content": "@@@@@@@@"}]
    plan = Plan(
        url=target.url,
        key=target.key,
        body=json.dumps({"model": target.prefix + MODEL, "messages": messages}),
        headers={},
        expect=" w1 w2 w3 w4 ",
        connections=connections,
        seconds=seconds,
        exact=True,
    )
    return _run("load.py", asdict(plan), seconds)


def _streamed(target: Target, connections: int, seconds: float) -> Figures:
    model = target.prefix + STREAMED
    plan = StreamPlan(target.url, target.fields, model, CHUNKS, connections, seconds)
    return _run("model_load.py", asdict(plan), seconds)


def _run(program: str, plan: Figures, seconds: float) -> Figures:
    command = [sys.executable, str(HERE / program), json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=seconds + 120)
    if done.returncode:
        raise SystemExit(f"{plan['url']}: {done.stderr.decode()[-600:]}")
    seen: Figures = json.loads(done.stdout)
    if seen["wrong"]:
        raise SystemExit(f"{seen['wrong']} wrong replies from {plan['url']}: {seen['example']}")
    return seen


# -- figures ---------------------------------------------------------------------------------------


def _medians(rounds: list[Figures]) -> Figures:
    """Return the median of each figure over the rounds, by target and load."""

    def median(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {name: median([each[name] for each in values]) for name in values[0]}
        return statistics.median(values) if isinstance(values[0], int | float) else ""

    found: Figures = median(rounds)
    return found


def _rows(seen: Figures) -> list[Row]:
    direct, own = seen[DIRECT], seen[TOOLBUS]
    chunk = (own["stream_busy"]["cpu_us"] - own["busy"]["cpu_us"]) / CHUNKS
    rows = [
        row("CPU of a model request in tool calls", own["busy"]["cpu_us"] / seen["tool"]["cpu_us"],
            "<=", 1.3),
        row("added p50 at concurrency 1, ms", own["one"]["p50_ms"] - direct["one"]["p50_ms"],
            "<=", 1.2),
        row("added time to the first part of a stream, ms",
            own["stream_one"]["first_ms"] - direct["stream_one"]["first_ms"], "<=", 2.0),
        row("CPU of a streamed part, µs", chunk, "<=", 30.0),
    ]  # fmt: skip
    if LITELLM in seen:
        ratio = own["busy"]["per_second"] / seen[LITELLM]["busy"]["per_second"]
        rows.append(row("requests/s in those of LiteLLM", ratio, ">=", 40.0))
    return rows


def _memory_rows(up: Gateway, target: Target, calls: int) -> list[Row]:
    """Print the memory; return the demand, which fewer requests than `WHOLE` cannot show."""
    first = _driven(up, target, calls // 5)
    last = _driven(up, target, calls - calls // 5)
    table = Table(title=f"PSS in MB after {calls // 5:,} and after {calls:,} requests")
    for column in ("process", "before", "after", "ratio"):
        table.add_column(column)
    for name, before in first.items():
        after = last.get(name, 0.0)
        table.add_row(name, f"{before:.1f}", f"{after:.1f}", f"{after / max(before, 0.1):.3f}")
    console.print(table)
    what = f"memory after {calls:,} requests by {calls // 5:,}"
    demand = row(what, last[TOTAL] / first[TOTAL], "<=", MAX_GROWTH)
    return [demand] if calls >= WHOLE else []


def _driven(up: Gateway, target: Target, calls: int) -> Figures:
    """Send at least this many requests; return the PSS of each process and of all, in MB."""
    made = 0
    while made < calls:
        made += _plain(target, BUSY, 5.0)["all_requests"]
    quiet(processes_of(up))
    sleep(SETTLE_SECONDS)
    return memory(up)


def _table(targets: list[Target], seen: Figures) -> None:
    table = Table(title=f"medians; concurrency {BUSY} and {ONE}; streams of {CHUNKS} parts")
    columns = ("requests/s", "CPU µs", "p50 ms at 1", "streams/s", "CPU µs of a stream", "first ms")
    for column in ("target", *columns):
        table.add_column(column)
    for each in targets:
        of = seen[each.name]
        table.add_row(
            each.name, f"{of['busy']['per_second']:,.0f}", f"{of['busy']['cpu_us']:,.0f}",
            f"{of['one']['p50_ms']:.2f}", f"{of['stream_busy']['per_second']:,.1f}",
            f"{of['stream_busy']['cpu_us']:,.0f}", f"{of['stream_one']['first_ms']:.2f}",
        )  # fmt: skip
    tool = seen["tool"]
    table.add_row("tool call", f"{tool['per_second']:,.0f}", f"{tool['cpu_us']:,.0f}", *[""] * 4)
    console.print(table)
    for each in targets:
        if each.note:
            console.print(f"{each.name}: {each.note}")


# -- the targets -----------------------------------------------------------------------------------


def _chat(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1/chat/completions"


@contextmanager
def _provider() -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(PROVIDER), str(port)])
    try:
        yield port
    finally:
        end(process)


@contextmanager
def _toolbus(mode: str, echo: int, provider: int) -> Iterator[Gateway]:
    more = f"""
providers: {{mock: {{kind: openai, url: "http://127.0.0.1:{provider}/v1", concurrency: 256}}}}
model_prices: {{"mock/*": {{input: 1.0, output: 5.0}}}}
"""
    with gateway(mode, echo, 0, more=more) as up:
        yield up


def _of_toolbus(up: Gateway) -> Target:
    url = up.endpoint.removesuffix("/mcp") + "/v1/chat/completions"
    note = "key, grant, budget, price, durable intent, settlement, audit"
    return Target(TOOLBUS, url, "mock/", SECRET, tuple(processes_of(up)), note)


@contextmanager
def _litellm(provider: int) -> Iterator[Target]:
    python = installed("litellm[proxy]")
    port, key = free_port(), f"sk-{secrets.token_hex(16)}"
    served = {"api_base": f"http://127.0.0.1:{provider}/v1", "api_key": "sk-mock"}
    with tempfile.TemporaryDirectory(prefix="toolbus-peer-") as directory:
        config = Path(directory) / "config.yaml"
        models = [
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", **served}}
            for name in (MODEL, STREAMED)
        ]
        settings = {"master_key": key}
        config.write_text(json.dumps({"model_list": models, "general_settings": settings}))
        command = [str(python.parent / "litellm"), "--config", str(config), "--port", str(port)]
        command += ["--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False"]
        variables = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        url = f"http://127.0.0.1:{port}/health/liveliness"
        with running(command, variables, url, Path(directory)) as pid:
            note = f"{version(python, 'litellm')}, one worker, master key only"
            yield Target(LITELLM, _chat(port), "", key, tuple(family(pid)), note)


if __name__ == "__main__":
    sys.exit(main())
