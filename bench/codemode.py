"""Input tokens with all definitions and in code mode (`make bench-codemode`).

Sixteen servers have 508 tools of about 540 tokens. More than 60 tasks are done twice through the
gateway over MCP: by an agent that gets every definition in every request, and by one that searches,
reads and writes programs. Answers and changes are checked.

The agents are scripted: the figures show the cost of the two ways and that both can do the tasks,
not how often a model succeeds. Input tokens are those of every request in full, as a stateless
model API bills them without caching.

`--tools FILE… --tasks FILE…` does the tasks of a published benchmark instead; `scripted.published`
describes the format.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from figures import keep
from scripted.comparison import AGENTS, compared, table
from scripted.comparison import SHOWS as SHOWS_OTHERS
from scripted.context import TOKENS
from scripted.gateway import SIZES, Stage, stage
from scripted.overhead import overhead
from scripted.tasks import Task, tasks

HERE = Path(__file__).parent
MIN_SAVED = 93.0  # per cent of input tokens, with all tools
MAX_OVERHEAD = {"sandbox_p50_ms": 5.0, "sandbox_p99_ms": 10.0, "inner_over_plain_ms": 0.5}
SHOWS = (
    "The agents are scripted, without a model. The figures show the input tokens of both agents, "
    "every request counted in full and without caching, and that both give the correct answers. "
    "They do not show how often a model writes a correct program or selects the correct tool."
)
console = Console(width=120)


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="number of tools that a key sees"
    )
    parser.add_argument(
        "--separate", action="store_true", help="run every service as its own process"
    )
    parser.add_argument("--tools", type=Path, nargs="+", help="tools of published benchmarks")
    parser.add_argument(
        "--tasks", type=Path, nargs="+", help="their tasks, one file per file of --tools"
    )
    parser.add_argument(
        "--search-model", default="", help="embedding model of the search: wordllama, or a path"
    )
    options = parser.parse_args()
    if options.tools or options.tasks:
        return others(options)
    report: dict[str, Any] = {
        "shows": SHOWS,
        "counted_by": TOKENS.counted_by,
        "tasks": len(tasks()),
        "separate": options.separate,
    }
    model = options.search_model
    with stage(options.sizes, fused=not options.separate, search_model=model) as running:
        report["sizes"] = {size: measured(running, size, tasks()) for size in options.sizes}
        report["overhead"] = overhead(running, options.sizes[-1])
    show(report)
    keep("codemode", report)
    return 0 if met(report) else 1


def others(options: argparse.Namespace) -> int:
    """Run a published benchmark; return 0 if both agents did every task."""
    tools, request = options.tools or [], options.tasks or []
    if len(tools) != len(request):
        console.print("--tools and --tasks need the same number of files.")
        return 2
    pairs = list(zip(tools, request, strict=True))
    result = compared(pairs, fused=not options.separate, search_model=options.search_model)
    report = {"counted_by": TOKENS.counted_by, **result}
    console.print(table(report), SHOWS_OTHERS)
    keep("codemode-published", report)
    return int(any(size[mode]["wrong"] for size in result["sizes"].values() for mode in AGENTS))


def measured(running: Stage, size: int, tasks: Sequence[Task]) -> dict[str, Any]:
    """Run every task with both agents and this number of tools."""
    found: dict[str, Any] = {}
    for mode in ("tools", "code"):
        definitions = running.definitions(size, mode)
        runs = [running.run(task, size, mode, definitions) for task in tasks]
        found[mode] = {"definitions": definitions, **summed(runs), "runs": runs}
        console.print(f"{size} tools, {mode}: {found[mode]['right']} of {len(runs)} right")
    for kind in ("input_tokens", "hard_input_tokens"):
        before, after = found["tools"][kind], found["code"][kind]
        found[f"saved_{kind}_percent"] = round(100 * (1 - after / before), 2)
    return found


def summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums of several runs' figures."""
    spent = [run["milliseconds"] for run in runs]
    return {
        "right": sum(run["right"] for run in runs),
        "wrong": [run["task"] for run in runs if not run["right"]],
        "requests": sum(len(run["requests"]) for run in runs),
        "input_tokens": round(statistics.mean(run["input_tokens"] for run in runs)),
        "hard_input_tokens": round(
            statistics.mean(run["input_tokens"] for run in runs if run["hard"])
        ),
        "p50_ms": statistics.median(spent),
        "p99_ms": statistics.quantiles(spent, n=100)[98],
    }


def met(report: dict[str, Any]) -> bool:
    """Return whether both agents did every task and the demands hold."""
    sizes = report["sizes"]
    right = all(not size[mode]["wrong"] for size in sizes.values() for mode in ("tools", "code"))
    saved = sizes[max(sizes)]["saved_input_tokens_percent"] >= MIN_SAVED
    quick = all(report["overhead"][name] <= most for name, most in MAX_OVERHEAD.items())
    return right and saved and quick


def show(report: dict[str, Any]) -> None:
    """Print all figures as tables."""
    table = Table(
        title=f"Input tokens per task, mean of {report['tasks']} ({report['counted_by']})"
    )
    for column in (
        "tools", "classic", "code mode", "saved %", "hard: classic", "code mode", "saved %",
        "right", "requests", "p50 ms",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for size, found in report["sizes"].items():
        before, after = found["tools"], found["code"]
        table.add_row(
            str(size),
            *(f"{each['input_tokens']:,}" for each in (before, after)),
            f"{found['saved_input_tokens_percent']}",
            *(f"{each['hard_input_tokens']:,}" for each in (before, after)),
            f"{found['saved_hard_input_tokens_percent']}",
            f"{before['right']} / {after['right']}",
            f"{before['requests']} / {after['requests']}",
            f"{before['p50_ms']:.1f} / {after['p50_ms']:.1f}",
        )
    console.print(table)
    costs = Table("overhead", "measured", "at most")
    for name, value in report["overhead"].items():
        limit = f"{MAX_OVERHEAD[name]:g}" if name in MAX_OVERHEAD else ""
        costs.add_row(name, f"{value:.2f}", limit)
    console.print(costs, report["shows"])


if __name__ == "__main__":
    sys.exit(main())
