"""Cost of guards in a call through the whole gateway: with and without them, in one run."""

import statistics
from pathlib import Path
from typing import Any

from rich.table import Table

from figures import Row, console, row
from guarded.corpus import SIZES, ordinary
from processes import name_of
from run import SECRET, Gateway, call_load, echoing, gateway, processes_of

GUARDS = """
guards:
  secrets: {kind: secrets, on: [results], action: redact, always: true}
  pii: {kind: pii, on: [results], action: redact, always: true}
"""
# Guards are declared, but apply to no call.
UNUSED = """
guards:
  secrets: {kind: secrets, on: [results], action: redact}
"""
CONNECTIONS = {"1 KB": 8, "10 KB": 8, "100 KB": 4, "1 MB": 1}
MOST_UNUSED = 1.05  # median time of a call with unused guards, in that of a call without any


def measured(rounds: int, seconds: float) -> dict[str, Any]:
    """Return the figures, and print them. The rounds alternate between the gateways."""
    text = ordinary()["prose"]
    with (
        echoing(1) as port,
        gateway("fused", port, 0) as without,
        gateway("fused", port, 0, more=UNUSED) as unused,
        gateway("fused", port, 0, more=GUARDS) as guarded,
    ):
        ways = {"without": without, "unused": unused, "guarded": guarded}
        seen: dict[str, dict[str, list[dict[str, Any]]]] = {
            size: {way: [] for way in ways} for size in SIZES
        }
        for _ in range(rounds):
            for size, length in SIZES.items():
                given = {"text": text[: length - 8] + " bench"}
                for way, up in ways.items():
                    load = call_load(
                        up.endpoint, "echo__echo", SECRET, CONNECTIONS[size], seconds, given
                    )
                    seen[size][way].append(load)
        memory = {way: _peak_mib(up) for way, up in ways.items()}
    figures = {
        "p50_ms": {
            size: {way: statistics.median(load["p50_ms"] for load in loads)
                   for way, loads in each.items()}
            for size, each in seen.items()
        },
        "peak_mib": memory,
    }  # fmt: skip
    _show(figures)
    return figures


def rows(figures: dict[str, Any]) -> list[Row]:
    """Return the figures that have a demand."""
    small = figures["p50_ms"]["1 KB"]
    ratio = small["unused"] / small["without"]
    return [row("call of 1 KB: unused guards, ratio to none", ratio, "<=", MOST_UNUSED)]


def _peak_mib(up: Gateway) -> float:
    """Return the peak memory of the largest process of a gateway."""
    return max(_peak(pid) for pid in processes_of(up) if not name_of(pid).startswith("nats"))


def _peak(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


def _show(figures: dict[str, Any]) -> None:
    title = "A call through the gateway: median ms"
    table = Table("result", "without", "unused", "secrets and pii", "added µs per KB", title=title)
    for size, ways in figures["p50_ms"].items():
        added = (ways["guarded"] - ways["without"]) * 1e3 / (SIZES[size] / 1024)
        table.add_row(size, *(f"{value:.2f}" for value in ways.values()), f"{added:.1f}")
    console.print(table)
    memory = ", ".join(f"{way} {mib:.0f} MiB" for way, mib in figures["peak_mib"].items())
    console.print("peak memory of the largest process:", memory)
