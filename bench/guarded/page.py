"""The page of the figures, docs/explanation/guard-figures.md. `make bench-guards` writes it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from guarded.attacks import ATTACKS, HONEST
from guarded.corpus import SIZES
from guarded.dojo import POLICY
from guarded.quality import share

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "guard-figures.md"

INTRODUCTION = """# Guard figures

`make bench-guards` measured these figures on {:%Y-%m-%d} and wrote this page. Figures that miss
their aim are marked."""


def write(report: dict[str, Any], now: datetime) -> None:
    """Write the page for a whole report."""
    PAGE.write_text(text(report, now))


def text(report: dict[str, Any], now: datetime) -> str:
    """Return the page."""
    parts = [
        INTRODUCTION.format(now),
        "## Aims\n\n" + _table(
            ("figure", "value", "aim", ""),
            ((each["what"], f"{each['value']:,.3f}", each["demand"],
              "" if each["met"] else "**missed**")
             for each in report["rows"]),
        ),
        "## Cost\n\nCPU µs per KB of a result, in one thread, median.\n\n" + _table(
            ("guard", "text", *SIZES),
            ((name, kind, *(f"{value:.1f}" for value in sizes.values()))
             for name, kinds in report["cost"]["us_per_kb"].items()
             for kind, sizes in kinds.items()),
        ),
        "A call through the gateway, median milliseconds. *Unused* guards are declared, but apply "
        "to no call.\n\n" + _table(
            ("result", "without guards", "unused guards", "secrets and pii"),
            ((size, *(f"{value:.2f}" for value in ways.values()))
             for size, ways in report["gateway"]["p50_ms"].items()),
        ),
        _quality(report["quality"]),
        _scenarios(report["scenarios"]),
        _attacks(report["attacks"]),
    ]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _quality(figures: dict[str, Any]) -> str:
    sets = _table(
        ("set", "source", "licence", "guard", "samples", "precision", "recall"),
        ((name, seen["source"], seen["licence"], seen["kind"], str(seen["samples"]),
          share(seen["precision"]), share(seen["recall"]))
         for name, seen in figures["sets"].items()),
    )  # fmt: skip
    alarms = _table(
        ("guard", "texts", "with a finding", "share"),
        ((kind, str(seen["texts"]), str(seen["alarms"]), share(seen["share"]))
         for kind, seen in figures["alarms"].items()),
    )  # fmt: skip
    missing = "".join(f"\n\nNot measured in this run: {name}." for name in figures["missing"])
    return (
        f"## Precision and recall\n\n{sets}{missing}\n\nFalse alarms, in texts of this repository "
        f"and of installed packages:\n\n{alarms}"
    )


def _scenarios(figures: dict[str, Any]) -> str:
    rows = []
    for variant, seen in figures.items():
        total = seen["total"]
        done = f"{total['tasks_done']} of {total['tasks']}"
        for attack, each in total.items():
            if isinstance(each, dict):
                stopped = each["combinations"] - each["reached"]
                rows.append((
                    variant, attack, f"{stopped} of {each['combinations']}", done,
                    str(total["tasks_asked"]),
                ))  # fmt: skip
    columns = (
        "switched on",
        "form of the attack",
        "stopped",
        "own tasks done",
        "after an approval",
    )
    return (
        "## AgentDojo\n\n[AgentDojo](https://agentdojo.spylab.ai) (MIT, version 0.1.35, suites "
        "v1.2.2): every user task with every injected task that has calls. The agent is a script: "
        "it does the user's calls, and obeys an injected text at once if a result contains it. An "
        "attack is stopped if none of its writing calls arrives at the server. A person approves "
        "the user's own calls and no others. AgentDojo's own check says whether a task is done."
        f"\n\n{_table(columns, rows)}\n\nThe policy:\n\n```yaml\n{POLICY.read_text().strip()}\n```"
    )


def _attacks(figures: dict[str, Any]) -> str:
    def way(variant: str, name: str) -> str:
        return "reached" if figures[variant][name] else "stopped"

    rows = [(name, each.source, way("none", name), way("guards", name))
            for name, each in ATTACKS.items()]  # fmt: skip
    honest = sum(figures["guards"][name] for name in HONEST)
    return (
        "## Published attacks\n\n"
        + _table(("attack", "published by", "without guards", "with guards"), rows)
        + f"\n\nOf {len(HONEST)} honest tools, {honest} reached the client unchanged."
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
