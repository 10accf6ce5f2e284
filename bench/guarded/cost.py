"""Cost of the built-in guards per KB, without the gateway; their memory; their worst texts."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

from rich.table import Table

from figures import Row, console, row
from guarded.corpus import SIZES, document, hostile, ordinary, shaped
from toolbus_common.config.guards.guard import Guard
from toolbus_common.guards.detectors import detector_of
from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.json_texts import JsonTexts

AIM_US = 25.0  # per KB, for secrets and personal data together
MOST_GROWTH = 1.6  # cost per KB at 1 MB, in that at 100 KB
MOST_MIB = 64.0  # what the check of a result of 1 MB may add to the peak memory
MOST_SECONDS = 2.0  # for the slowest hostile megabyte; it is the default time limit of a guard
KINDS = ("secrets", "pii", "injection")
Check = Callable[[bytes], list[Finding]]


def checks() -> dict[str, Check]:
    """Return the check of a document for each kind, and for secrets and personal data together."""
    detectors = {
        kind: detector_of(Guard.model_validate({"kind": kind, "on": ["results"]})) for kind in KINDS
    }

    def check(*kinds: str) -> Check:
        used = [detectors[kind] for kind in kinds]

        def run(body: bytes) -> list[Finding]:
            texts = JsonTexts(body).texts
            return [finding for each in used for finding in each.find(texts)]

        return run

    return {"secrets and pii": check("secrets", "pii"), **{kind: check(kind) for kind in KINDS}}


def measured() -> dict[str, Any]:
    """Return the figures, and print them."""
    made = checks()
    texts = ordinary()
    costs = {
        name: {
            text: {size: per_kb(run, document(texts[text], SIZES[size])) for size in SIZES}
            for text in texts
        }
        for name, run in made.items()
    }
    worst = {name: _worst(run) for name, run in made.items()}
    memory = {name: _added_mib(name) for name in made}
    _show(costs, worst, memory)
    return {"us_per_kb": costs, "hostile": worst, "added_mib": memory}


def rows(figures: dict[str, Any]) -> list[Row]:
    """Return the figures that have a demand."""
    both = figures["us_per_kb"]["secrets and pii"]
    found = [
        row(f"secrets and pii, {size}: µs per KB, mean of the texts",
            statistics.mean(each[size] for each in both.values()), "<=", AIM_US)
        for size in SIZES
    ]  # fmt: skip
    for name, worst in figures["hostile"].items():
        growth = max(each["growth"] for each in worst.values())
        seconds = max(each["seconds"] for each in worst.values())
        found.append(row(f"{name}: growth, worst text", growth, "<=", MOST_GROWTH))
        found.append(row(f"{name}: seconds for 1 MB, worst text", seconds, "<=", MOST_SECONDS))
        found.append(row(f"{name}: MiB for 1 MB", figures["added_mib"][name], "<=", MOST_MIB))
    return found


def per_kb(run: Check, body: bytes) -> float:
    """Return the median CPU time of a check in µs per KB."""
    run(body)
    repeats = max(3, min(200, (4 << 20) // len(body)))
    seen = []
    for _ in range(repeats):
        began = thread_time()
        run(body)
        seen.append(thread_time() - began)
    return statistics.median(seen) * 1e6 / (len(body) / 1024)


def _worst(run: Check) -> dict[str, dict[str, float]]:
    texts = hostile()
    small, large = SIZES["100 KB"], SIZES["1 MB"]
    seen = {name: _grown(run, document(texts[name], small), document(texts[name], large))
            for name in texts}  # fmt: skip
    shapes = {size: shaped(size) for size in (small, large)}
    for name in shapes[small]:
        seen[name] = _grown(run, shapes[small][name], shapes[large][name])
    return seen


def _grown(run: Check, small: bytes, large: bytes) -> dict[str, float]:
    run(small)
    before = min(_seconds(run, small) for _ in range(3)) / len(small)
    seconds = min(_seconds(run, large) for _ in range(2))
    after = seconds / len(large)
    return {"us_per_kb": after * 1024e6, "growth": after / before, "seconds": seconds}


def _seconds(run: Check, body: bytes) -> float:
    began = perf_counter()
    run(body)
    return perf_counter() - began


def _added_mib(name: str) -> float:
    """Return what the largest result adds to the peak memory of a process that checked others."""
    code = f"from guarded.cost import added; print(added({name!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def added(name: str) -> float:
    """Measure that in this process, in MiB."""
    run, texts = checks()[name], ordinary()
    bodies = {size: [document(text, SIZES[size]) for text in texts.values()] for size in SIZES}
    for body in bodies["10 KB"]:
        run(body)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak memory
    before = _memory("VmRSS")
    for body in bodies["1 MB"]:
        run(body)
    return _memory("VmHWM") - before


def _memory(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) / 1024


def _show(
    costs: Mapping[str, Mapping[str, Mapping[str, float]]],
    worst: Mapping[str, Mapping[str, Mapping[str, float]]],
    memory: Mapping[str, float],
) -> None:
    table = Table("guard", "text", *SIZES, title="CPU µs per KB, direct")
    for name, texts in costs.items():
        for text, sizes in texts.items():
            table.add_row(name, text, *(f"{value:.1f}" for value in sizes.values()))
    console.print(table)
    table = Table("guard", "worst text", "µs per KB", "growth", "MiB", title="Hostile texts, 1 MB")
    for name, texts in worst.items():
        slowest = max(texts, key=lambda text: texts[text]["us_per_kb"])
        most = max(texts, key=lambda text: texts[text]["growth"])
        cost, growth = texts[slowest]["us_per_kb"], texts[most]["growth"]
        table.add_row(
            name, f"{slowest}; {most}", f"{cost:.1f}", f"{growth:.2f}", f"{memory[name]:.1f}"
        )
    console.print(table)
