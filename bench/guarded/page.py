"""The page of the figures, docs/explanation/guard-figures.md. `make bench-guards` writes it."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from figures import RESULTS, commit
from guarded.attacks import ATTACKS, HONEST
from guarded.corpus import SIZES
from guarded.dojo import POLICY
from guarded.quality import share

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "guard-figures.md"

PARTS = ("cost", "gateway", "quality", "scenarios", "attacks")
INTRODUCTION = """# Guard figures

`make bench-guards` measured these figures and wrote this page. Figures that miss their aim are
marked. A part that has not been measured is missing."""


def keep(part: str, report: dict[str, Any]) -> None:
    """Store the newest report of a part, with its time and commit, instead of an older one."""
    about = {"at": datetime.now(UTC).isoformat(), "commit": commit()}
    _path(part).write_text(json.dumps({**about, **report}, indent=2) + "\n")


def stored() -> dict[str, dict[str, Any]]:
    """Return the newest report of each part that has one."""
    return {part: json.loads(_path(part).read_text()) for part in PARTS if _path(part).exists()}


def _path(part: str) -> Path:
    return RESULTS / f"guards-{part}.json"


def write(reports: dict[str, dict[str, Any]]) -> None:
    """Write the page from the reports of parts."""
    PAGE.write_text(text(reports))


def text(reports: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    sections = {
        "cost": _cost,
        "gateway": _gateway,
        "quality": _quality,
        "scenarios": _scenarios,
        "attacks": _attacks,
    }
    measured = _table(
        ("part", "measured", "commit", "load before, of cores"),
        ((part, each["at"][:10], f"`{each['commit']}`",
          f"{each['before']['load']:.1f} of {each['before']['cores']:.0f}")
         for part, each in reports.items()),
    )  # fmt: skip
    aims = _table(
        ("figure", "value", "aim", ""),
        ((row["what"], f"{row['value']:,.3f}", row["demand"], "" if row["met"] else "**missed**")
         for each in reports.values() for row in each["rows"]),
    )  # fmt: skip
    parts = [
        INTRODUCTION,
        measured,
        "Figures of a loaded machine are too high.",
        f"## Aims\n\n{aims}",
        *(sections[part](each["figures"]) for part, each in reports.items()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _cost(figures: dict[str, Any]) -> str:
    costs = _table(
        ("guard", "text", *SIZES),
        ((name, kind, *(f"{value:.1f}" for value in sizes.values()))
         for name, kinds in figures["us_per_kb"].items()
         for kind, sizes in kinds.items()),
    )  # fmt: skip
    return f"## Cost\n\nCPU µs per KB of a result, in one thread, median.\n\n{costs}"


def _gateway(figures: dict[str, Any]) -> str:
    return (
        "A call through the gateway, median milliseconds. *Unused* guards are declared, but apply "
        "to no call.\n\n"
    ) + _table(
        ("result", "without guards", "unused guards", "secrets and pii"),
        ((size, *(f"{value:.2f}" for value in ways.values()))
         for size, ways in figures["p50_ms"].items()),
    )  # fmt: skip


def _quality(figures: dict[str, Any]) -> str:
    sets = _table(
        ("set", "source", "licence", "guard", "samples", "precision", "recall"),
        ((name, seen["source"], seen["licence"], seen["kind"], str(seen["samples"]),
          share(seen["precision"]), share(seen["recall"]))
         for name, seen in figures["sets"].items()),
    )  # fmt: skip
    alarms = _table(
        ("guard", "texts", "with a finding", "share", "without e-mail addresses"),
        ((kind, str(seen["texts"]), str(seen["alarms"]), share(seen["share"]),
          share(seen.get("without_addresses")))
         for kind, seen in figures["alarms"].items()),
    )  # fmt: skip
    missing = "".join(f"\n\nNot measured in this run: {name}." for name in figures["missing"])
    seen = figures["secret_samples"]
    secrets = (
        f"The samples of gitleaks' own rules (MIT), which are generated: of {seen['positives']} "
        f"secrets, {share(seen['recall'])} are found by any rule and "
        f"{share(seen['recall_by_rule'])} by the sample's rule; of {seen['negatives']} texts that "
        f"a rule must not report, {share(seen['false_positives'])} are reported by it. This says "
        "that the rules work as their authors meant, not which share of secrets they find in "
        "real texts."
    )
    return (
        f"## Precision and recall\n\n{sets}{missing}\n\n{secrets}\n\nFalse alarms, in texts of "
        f"this repository and of installed packages:\n\n{alarms}"
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
        "stopped, of combinations tried",
        "own tasks done",
        "after an approval",
    )
    return (
        "## AgentDojo\n\n[AgentDojo](https://agentdojo.spylab.ai) (MIT, version 0.1.35, suites "
        "v1.2.2): every user task with every injected task that has calls. The agent is a script: "
        "it does the user's calls, and obeys an injected text at once if a result contains it. An "
        "attack is stopped if none of its writing calls arrives at the server. A person approves "
        "the user's own calls and no others. AgentDojo's own check says whether a task is done. "
        "**The policy was written for this benchmark**, by people who knew its attacks and tasks: "
        "the figures say what guards, flow and rules can hold together, not what an installation "
        "with a policy of its own holds. Where an approval is needed, the safety is that of the "
        "person who decides; the script's person never errs. A run with a time limit takes "
        "combinations in a random order, and *stopped* names how many it tried."
        f"\n\n{_table(columns, rows)}\n\nThe policy:\n\n"
        "<!-- sample: not run: the servers of the benchmark -->\n"
        f"```yaml\n{POLICY.read_text().strip()}\n```"
    )


def _attacks(figures: dict[str, Any]) -> str:
    def way(variant: str, name: str) -> str:
        return "reached" if figures[variant][name] else "stopped"

    rows = [(name, each.source, way("none", name), way("guards", name))
            for name, each in ATTACKS.items()]  # fmt: skip
    honest = sum(figures["guards"][name] for name in HONEST)
    return (
        "## Published attacks\n\nThe texts are written after the published descriptions, not "
        "copied from captured attacks. An attack is stopped if its instruction or secret does not "
        "reach the client; without guards, some are held by the checks that are always on.\n\n"
        + _table(("attack", "published by", "without guards", "with guards"), rows)
        + f"\n\nOf {len(HONEST)} honest tools, {honest} reached the client unchanged."
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
