"""Comparison of both agents over a published benchmark's tasks."""

import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.table import Table

from scripted.context import Conversation, definitions_cost
from scripted.gateway import Stage, stage
from scripted.mcp_client import got
from scripted.published import Published, PublishedTask, published
from scripted.published_agents import found_by_search, with_programs, without

AGENTS = {"tools": without, "code": with_programs}
SHOWS = (
    "The agents are scripted, without a model, and both know beforehand which tools a task needs "
    "and the order of its calls. Schemas and results are synthesised. Right means that exactly "
    "the task's tools were called with the arguments that their schemas require, and that the "
    "records came back. The figures show the input tokens of both agents, with every request "
    "counted in full and without caching, and how often the search finds the tools by the task's "
    "own words. They do not show whether a model would do the task. Published token counts come "
    "from a model with other schemas and results; compare them with care."
)


def compared(
    pairs: Sequence[tuple[Path, Path]], *, fused: bool, search_model: str = ""
) -> dict[str, Any]:
    """Return the figures of every pair of files by the number of tools."""
    found = {}
    for tools, tasks in pairs:
        known = published(tools, tasks)
        with stage(
            (known.size,), fused=fused, tools_file=tools.resolve(), search_model=search_model
        ) as running:
            found[str(known.size)] = _measured(running, known)
    return {"shows": SHOWS, "search_model": search_model, "sizes": found}


def _measured(running: Stage, known: Published) -> dict[str, Any]:
    listed = running.listed(known.size, "tools")
    bare = [{**each, "inputSchema": {}} for each in listed]
    fields: dict[str, Any] = {
        "tasks": len(known.tasks),
        "passed_over": known.passed_over,
        "tools_named_that_no_server_has": known.unknown,
        "definitions": definitions_cost(listed),
        "definitions_without_schemas": definitions_cost(bare),
    }
    for mode in AGENTS:
        definitions = definitions_cost(running.listed(known.size, mode))
        runs = [_run(running, known, task, mode, definitions) for task in known.tasks]
        fields[mode] = _summed(runs)
    for kind in ("input_tokens", "hard_input_tokens"):
        if fields["code"][kind]:
            saved = 1 - fields["code"][kind] / fields["tools"][kind]
            fields[f"saved_{kind}_percent"] = round(100 * saved, 2)
    return fields


def _run(
    running: Stage, known: Published, task: PublishedTask, mode: str, definitions: int
) -> dict[str, Any]:
    got(f"{running.servers.url}/reset")
    talk = Conversation(definitions)
    with closing(running.speaker(known.size, mode)) as speaker:
        done = AGENTS[mode](task, known.tools, speaker, talk)
    called = Counter("__".join(each) for each in got(f"{running.servers.url}/effects"))
    return {
        "task": task.name,
        "hard": task.hard,
        "tools": len(task.tools),
        "found_by_search": found_by_search(task, known.tools, talk) if mode == "code" else 0,
        "right": done and called == Counter(task.tools),
        "input_tokens": sum(talk.requests),
        "requests": len(talk.requests),
    }


def _summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    hard = [run["input_tokens"] for run in runs if run["hard"]]
    spent = [run["input_tokens"] for run in runs]
    found = sum(run["found_by_search"] for run in runs)
    return {
        "right": sum(run["right"] for run in runs),
        "wrong": [run["task"] for run in runs if not run["right"]],
        "requests": sum(run["requests"] for run in runs),
        "input_tokens": round(statistics.mean(spent)),
        "most_input_tokens": max(spent),
        "hard_input_tokens": round(statistics.mean(hard)) if hard else None,
        "found_by_search_percent": round(100 * found / sum(run["tools"] for run in runs), 1),
    }


def table(report: dict[str, Any]) -> Table:
    """Return the figures as a table by the number of tools."""
    shown = Table(title="Input tokens per task, mean, of a published benchmark's tools and tasks")
    for column in (
        "tools", "definitions", "no schemas", "tasks", "classic", "code mode", "saved %",
        "hard: saved %", "right", "requests", "found %",
    ):  # fmt: skip
        shown.add_column(column, justify="right")
    for size, found in report["sizes"].items():
        before, after = found["tools"], found["code"]
        shown.add_row(
            size,
            f"{found['definitions']:,}",
            f"{found['definitions_without_schemas']:,}",
            str(found["tasks"]),
            *(f"{each['input_tokens']:,}" for each in (before, after)),
            str(found["saved_input_tokens_percent"]),
            str(found.get("saved_hard_input_tokens_percent", "")),
            f"{before['right']} / {after['right']}",
            f"{before['requests']} / {after['requests']}",
            str(after["found_by_search_percent"]),
        )
    return shown
