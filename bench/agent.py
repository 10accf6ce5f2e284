"""Tasks done by a real model, with all definitions and in code mode (`make bench-agent`).

The model is Qwen2.5-Coder-1.5B on llama.cpp. It is called through Toolbus' models API, and its
tools through /mcp. They are those of four real MCP servers, and up to 96, 251 and 508 tools those
of the scripted benchmark's company. An answer is right only if the audit log has a completed call
of a tool with which the question can be answered; otherwise it was guessed.

It takes hours. Finished tasks are skipped when it is started again. Input tokens are those of every
request in full, as a stateless model API bills them without caching.
"""

import argparse
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from figures import RESULTS, console
from model_agent.agent import Agent
from model_agent.records import NO_FIT, append, is_done, load, summary, verdict
from model_agent.setting import CLASSIC, CODE, REAL, Setting, running
from model_agent.tasks import TASKS, Task
from model_agent.workspace import Workspace
from scripted.gateway import SIZES

ROOT = Path(__file__).resolve().parents[1]
DIRECTORY = ROOT / "build" / "agent"
_OUTER = "SELECT call_id FROM events WHERE trace_id = '{trace}' AND parent_id = ''"
COMPLETED = (
    "SELECT DISTINCT server, tool FROM events WHERE event = 'call.completed' AND NOT is_error "
    f"AND (call_id IN ({_OUTER}) OR parent_id IN ({_OUTER}))"
)
ENDED = (
    "SELECT count() AS n FROM events WHERE trace_id = '{trace}' AND parent_id = '' "
    "AND event IN ('call.completed', 'call.failed', 'call.denied')"
)


def main() -> int:
    """Run the benchmark; return 0 if every selected task was run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tools", type=int, nargs="+", default=[REAL, *SIZES],
        help="number of tools that a key sees; 0 is those of the real servers",
    )  # fmt: skip
    parser.add_argument("--modes", nargs="+", choices=(CLASSIC, CODE), default=[CODE, CLASSIC])
    parser.add_argument("--tasks", type=int, default=len(TASKS), help="number of tasks")
    parser.add_argument("--threads", type=int, default=2, help="threads of the model")
    parser.add_argument("--name", default="run", help="name of the results and of the workspace")
    parser.add_argument("--show", action="store_true", help="print stored results only")
    options = parser.parse_args()
    path = RESULTS / f"agent-{options.name}.jsonl"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends all processes
    if not options.show:
        workspace = Workspace(DIRECTORY / options.name)
        with running(DIRECTORY, workspace, options.tools, options.threads) as setting:
            for size in setting.sizes:
                for mode in options.modes:
                    measure(setting, size, mode, TASKS[: options.tasks], path)
    show(path)
    return 0


def measure(setting: Setting, size: int, mode: str, tasks: tuple[Task, ...], path: Path) -> None:
    """Run the tasks that have no record yet."""
    missing = [each for each in tasks if not is_done(load(path), size, mode, each.name)]
    if not missing:
        return
    agent = Agent(setting, size, mode)
    common = {"tools": size, "mode": mode, "prompt_tokens": agent.prompt_tokens}
    if not agent.fits:
        append(path, {**common, "task": "", "verdict": NO_FIT, **stamp()})
        console.print(f"{size} tools, {mode}: does not fit, {agent.prompt_tokens:,} tokens")
        return
    for task in missing:
        setting.workspace.reset()
        run = agent.run(task.question_in(setting.workspace))
        called = completed(setting, run)
        judged = verdict(
            is_right=run["ended"] == "answered" and task.is_right(run["answer"], setting.workspace),
            called=called,
            useful=task.tools,
        )
        keep_conversation(path.stem, f"{size}-{mode}-{task.name}", run.pop("conversation"))
        record = {
            **common,
            "task": task.name,
            "verdict": judged,
            **run,
            "completed": sorted(called),
        }
        append(path, {**record, **stamp()})
        console.print(
            f"{size} tools, {mode}, {task.name}: {judged}, {run['turns']} turns, "
            f"{run['input_tokens']:,} tokens, {run['seconds']:.0f} s: {run['answer'][:80]!r}"
        )


def completed(setting: Setting, run: dict[str, Any]) -> set[str]:
    """Return the tools whose calls were completed in a run, also by programs."""
    cluster, calls = setting.cluster, len(run["calls"])
    cluster.eventual_rows(
        ENDED.format(trace=run["trace"]), lambda rows: bool(rows) and int(rows[0]["n"]) >= calls
    )
    rows = cluster.rows(COMPLETED.format(trace=run["trace"]))
    return {f"{row['server']}__{row['tool']}" for row in rows}


def keep_conversation(name: str, run: str, messages: list[dict[str, str]]) -> None:
    """Store a conversation for reading; it is not among the results."""
    directory = DIRECTORY / "conversations" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{run}.json").write_text(json.dumps(messages, indent=1, ensure_ascii=False))


def stamp() -> dict[str, str]:
    """Return the time and the version of the code."""
    words = ["git", "describe", "--always", "--dirty"]
    version = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "version": version.strip()}


def show(path: Path) -> None:
    """Print the stored results as a table."""
    table = Table(title=f"mean of each task ({path.name})")
    for column in ("tools", "mode", "tasks", "right", "guessed", "input tokens", "output tokens",
                   "turns", "seconds", "definitions"):  # fmt: skip
        table.add_column(column, justify="right")
    names = ("right", "guessed", "input_tokens", "output_tokens", "turns", "seconds")
    for each in summary(load(path)):
        figures = (f"{each[name]:,}" if name in each else "does not fit" for name in names)
        prompt = f"{each['prompt_tokens']:,}"
        table.add_row(str(each["tools"]), each["mode"], str(each["tasks"]), *figures, prompt)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
