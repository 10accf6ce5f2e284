"""Size, start-up and memory of an installation from the wheel (`make footprint`).

The wheel is built and installed into an empty virtual environment by pip and by uv, without the
development group. Everything is measured there: size of each distribution, import time of each
service, start of commands, and the processes of `toolbus up` with the demo.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from hatchling.builders.wheel import WheelBuilder
from rich.table import Table

from figures import Row, console, keep, load, row, show
from processes import family, name_of, resident_mb

ROOT = Path(__file__).parents[1]
SERVICES = ("ingress", "policy", "executor", "codemode", "audit", "oauth")
COMMANDS = {"--help": ("--help",), "call": ("call", "clock__now"), "connect": ("connect", "--help")}
ROUNDS = 5
READY_SECONDS = 60.0
SETTLED_SECONDS = 3.0
SHOWN = 16  # the largest distributions
MB = 1_000_000
# Prints the bytes of each distribution; files are counted once, compiled modules as installed.
SIZES = """
import json
from importlib.metadata import distributions
print(json.dumps({
    each.name: sum(p.stat().st_size for f in each.files or () if (p := f.locate()).is_file())
    for each in distributions()
}))
"""
IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def main() -> int:
    """Measure and print all figures; return 0, because a missed demand is a figure, not a gate.

    The demand on size is missed: `chdb-core` and what it requires are 887 MB (ADR 39).
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--installer", choices=("pip", "uv", "both"), default="both")
    options = parser.parse_args()
    installers = ("uv", "pip") if options.installer == "both" else (options.installer,)
    report: dict[str, Any] = {"machine": load(), "lines": lines()}
    with tempfile.TemporaryDirectory(prefix="toolbus-footprint-") as name:
        directory = Path(name)
        (wheel,) = WheelBuilder(str(ROOT)).build(directory=name, versions=["standard"])
        for installer in installers:
            report[installer] = install(installer, Path(wheel), directory / installer)
        commands = directory / installers[-1] / "bin"  # pip compiles modules, as most users have
        report["wheel_mb"] = Path(wheel).stat().st_size / MB
        python = str(commands / "python")
        report["imports"] = {
            each: import_seconds(python, f"toolbus_{each}.main") for each in SERVICES
        }
        # Of the development group: demo servers and the bridge do without it (ADR 40).
        report["imports"]["(MCP SDK)"] = import_seconds(sys.executable, "mcp.server.mcpserver")
        for mode in ("fused", "separate"):
            report[mode] = gateway(commands, directory / mode, mode)
    report["figures"] = figures(report, installers)
    _show(report, installers[-1])
    keep("footprint", report)
    return 0


def install(installer: str, wheel: Path, at: Path) -> dict[str, Any]:
    """Install the wheel into a new environment; return its size and the seconds it took."""
    subprocess.run([sys.executable, "-m", "venv", str(at)], check=True)
    python = at / "bin" / "python"
    command = {
        "pip": [str(python), "-m", "pip", "install", "--quiet", str(wheel)],
        "uv": ["uv", "pip", "install", "--quiet", "--python", str(python), str(wheel)],
    }[installer]
    began = monotonic()
    subprocess.run(command, check=True)
    seconds = monotonic() - began
    sizes: dict[str, int] = json.loads(_output(str(python), "-c", SIZES))
    for own in ("pip", "setuptools"):  # of the environment, not of Toolbus
        sizes.pop(own, None)
    by_size = sorted(sizes.items(), key=lambda each: -each[1])
    return {
        "seconds": seconds,
        "size_mb": sum(sizes.values()) / MB,
        "distributions": {name: size / MB for name, size in by_size},
    }


def import_seconds(python: str, module: str) -> float:
    """Return the least time in which a module is imported."""
    return min(float(_output(python, "-c", IMPORT.format(module))) for _ in range(ROUNDS))


def gateway(commands: Path, directory: Path, mode: str) -> dict[str, Any]:
    """Run `toolbus up` with the demo; return its readiness, memory and commands' times."""
    with running(commands, directory, mode) as (pid, seconds, ready):
        sleep(SETTLED_SECONDS)
        memory: dict[str, float] = {}
        for each in family(pid):
            name, used = name_of(each).partition(" ")[0], resident_mb([each])
            if used:  # an ended process has no memory and no name
                memory[name] = memory.get(name, 0.0) + used
        environment = {"TOOLBUS_KEY": ready["key"], "TOOLBUS_URL": ready["endpoint"]}
        times = {
            name: command_seconds(commands, words, environment) for name, words in COMMANDS.items()
        }
    return {"ready_seconds": seconds, "memory_mb": memory, "commands": times}


@contextmanager
def running(
    commands: Path, directory: Path, mode: str
) -> Iterator[tuple[int, float, dict[str, Any]]]:
    """Run `toolbus up` in an empty directory; yield its process, readiness and ready file."""
    directory.mkdir()
    ready = directory / "ready.json"
    words = [str(commands / "toolbus"), "up", "--port", "0", "--ready-file", str(ready)]
    began = monotonic()
    with (directory / "log").open("wb") as log:
        up = subprocess.Popen(
            [*words, *(["--separate"] if mode == "separate" else [])],
            cwd=directory, env=_environment(), stdout=log, stderr=log,
        )  # fmt: skip
        try:
            while not ready.exists():
                if up.poll() is not None or monotonic() - began > READY_SECONDS:
                    raise SystemExit((directory / "log").read_text()[-4000:])
                sleep(0.01)
            seconds = monotonic() - began
            yield up.pid, seconds, json.loads(ready.read_text())
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(READY_SECONDS)


def command_seconds(commands: Path, words: tuple[str, ...], environment: dict[str, str]) -> float:
    """Return the least time that a command takes."""
    times = []
    for _ in range(ROUNDS):
        began = monotonic()
        _output(str(commands / "toolbus"), *words, **environment)
        times.append(monotonic() - began)
    return min(times)


def lines() -> dict[str, int]:
    """Return the lines of Python in each package that are neither blank nor a comment."""
    places = ("libs/*/toolbus_*", "services/*/toolbus_*", "cli/toolbus_*", "demo/toolbus_*")
    packages = {path.name: path for place in places for path in sorted(ROOT.glob(place))}
    return {name: sum(map(_code_lines, path.rglob("*.py"))) for name, path in packages.items()}


def figures(report: dict[str, Any], installers: tuple[str, ...]) -> list[Row]:
    """Return the figures that have demands."""
    rows = [row("size, MB", report[installers[-1]]["size_mb"], "<=", 850)]
    rows += [row(f"{each} install, s", report[each]["seconds"], "<=", 30) for each in installers]
    times = report["fused"]["commands"]
    rows += [row(f"toolbus {name}, s", times[name], "<=", 0.35) for name in ("--help", "call")]
    rows.append(row("toolbus connect, s", times["connect"], "<=", 1))
    for mode in ("fused", "separate"):
        rows.append(row(f"{mode}: ready, s", report[mode]["ready_seconds"], "<=", 4))
    return rows


def _show(report: dict[str, Any], installer: str) -> None:
    largest = list(report[installer]["distributions"].items())[:SHOWN]
    count = len(report[installer]["distributions"])
    _table(f"largest of {count} distributions", "MB", dict(largest))
    _table("import", "s", report["imports"])
    for mode in ("fused", "separate"):
        memory = report[mode]["memory_mb"]
        _table(f"memory, {mode}", "MB", {**memory, "sum": sum(memory.values())})
    _table("lines of code", "lines", {**report["lines"], "sum": sum(report["lines"].values())})
    show(report["figures"])


def _table(title: str, unit: str, values: dict[str, float]) -> None:
    table = Table(title, unit)
    table.columns[1].justify = "right"
    for name, value in values.items():
        table.add_row(name, f"{value:,.0f}" if unit != "s" else f"{value:.2f}")
    console.print(table)


def _code_lines(path: Path) -> int:
    stripped = map(str.strip, path.read_text().splitlines())
    return sum(1 for line in stripped if line and not line.startswith("#"))


def _environment(**more: str) -> dict[str, str]:
    outside = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return outside | more


def _output(*words: str, **more: str) -> str:
    done = subprocess.run(
        words, env=_environment(**more), capture_output=True, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    if shutil.which("uv") is None:
        os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
    sys.exit(main())
