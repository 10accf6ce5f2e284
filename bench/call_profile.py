"""Python calls, coroutines and tasks per request in the call-path process (`make bench-profile`).

A fused gateway serves calls with a key and a budget over a plain HTTP upstream, then sessions, each
with one such call. The counts do not depend on the speed of the machine: the command asserts no
time. A call is a started or resumed Python frame; resuming a chain of ten awaiting coroutines
counts as ten calls. Messages are those that the process sends to NATS and Valkey.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from rich.table import Table

from figures import console
from processes import name_of
from run import SECRET, Gateway, call_load, echoing, gateway, processes_of, session_load

HERE = Path(__file__).parent
DIRECTORY = "TOOLBUS_BENCH_PROFILE"
DEMAND = 320.0
# Messages of the process, and the function that each of them calls once.
MESSAGES = {
    "to NATS": "Client._send_publish",
    "from NATS": "Client._process_msg",
    "to Valkey": "ScriptConnection.send",
}
BY_FOLDER = 2  # a service's folders show where its calls are


def main() -> int:
    """Count at each concurrency, and print the counts; return 1 if a lonely call has too many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of each load")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--no-sessions", action="store_true", help="do not count sessions")
    parser.add_argument("--top", type=int, default=30, help="number of functions to print")
    parser.add_argument("--json", type=Path, help="file for the counts per request")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="toolbus-profile-") as directory:
        os.environ[DIRECTORY] = directory
        os.environ["PYTHONPATH"] = str(HERE / "profiled")
        with echoing() as port, gateway("fused", port, 0) as up:
            reports = {
                f"calls, {each} connections": _counted(
                    up, Path(directory), _calls(up, each), options.seconds
                )
                for each in options.connections
            }
            demanded = list(reports)
            if not options.no_sessions:
                for name, stream in (("with a stream", True), ("without a stream", False)):
                    load = _sessions(up, stream=stream)
                    reports[f"sessions {name}"] = _counted(
                        up, Path(directory), load, options.seconds
                    )
    for name, report in reports.items():
        _show(name, report, options.top)
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1))
    return 0 if all(reports[name]["calls"] <= DEMAND for name in demanded) else 1


def _calls(up: Gateway, connections: int) -> Callable[[float], int]:
    """Return a load of calls for a number of seconds, which returns their number."""
    return lambda seconds: int(
        call_load(up.endpoint, "echo__echo", SECRET, connections, seconds)["all_requests"]
    )


def _sessions(up: Gateway, *, stream: bool) -> Callable[[float], int]:
    """Return a load of sessions for a number of seconds, which returns their number."""
    return lambda seconds: int(session_load(up.endpoint, seconds, stream=stream)["all_sessions"])


def _counted(
    up: Gateway, directory: Path, load: Callable[[float], int], seconds: float
) -> dict[str, Any]:
    """Return the counts per request of one load, after a load that fills the caches."""
    pid = next(pid for pid in processes_of(up) if "ingress" in name_of(pid))
    load(1.0)
    os.kill(pid, signal.SIGUSR1)
    requests = load(seconds)
    os.kill(pid, signal.SIGUSR2)
    written, give_up = directory / f"{pid}.json", monotonic() + 60
    while not written.exists():
        if monotonic() > give_up:
            raise SystemExit(f"process {pid} did not write its counts")
        sleep(0.05)
    report = json.loads(written.read_text())
    written.unlink()
    return _per_request(report, requests)


def _per_request(report: dict[str, Any], requests: int) -> dict[str, Any]:
    functions, packages = Counter[str](), Counter[str]()
    coroutines = 0
    for each in report["functions"]:
        package = _package(each["file"])
        calls = each["started"] + each["resumed"]
        functions[f"{package}  {Path(each['file']).name}  {each['name']}"] += calls
        packages[package] += calls
        coroutines += each["started"] if each["coroutine"] else 0
    return {
        "requests": requests,
        "calls": packages.total() / requests,
        "started": sum(each["started"] for each in report["functions"]) / requests,
        "coroutines": coroutines / requests,
        "tasks": report["tasks"] / requests,
        "messages": {
            message: sum(
                each["started"] for each in report["functions"] if each["name"] == function
            )
            / requests
            for message, function in MESSAGES.items()
        },
        "packages": {name: count / requests for name, count in packages.most_common()},
        "functions": {name: count / requests for name, count in functions.most_common()},
    }


def _package(file: str) -> str:
    """Return the library of a file, or the package of this project with its folder."""
    parts = Path(file).parts
    own = next((at for at, part in enumerate(parts) if part.startswith("toolbus_")), None)
    if own is not None:
        return "/".join(parts[own : min(own + BY_FOLDER, len(parts) - 1)])
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    return "python"


def _show(load: str, report: dict[str, Any], top: int) -> None:
    table = Table(title=f"each of {report['requests']:,} {load}")
    table.add_column("package, function")
    table.add_column("Python calls", justify="right")
    for name, count in report["packages"].items():
        if count >= 0.05:
            table.add_row(name, f"{count:.1f}")
    table.add_section()
    for name, count in list(report["functions"].items())[:top]:
        table.add_row(name, f"{count:.2f}")
    console.print(table)
    console.print(
        f"{load}: {report['calls']:.0f} Python calls each (demand for a call ≤ {DEMAND:g}), "
        f"{report['started']:.0f} started frames, {report['coroutines']:.1f} coroutines, "
        f"{report['tasks']:.2f} tasks; messages:",
        ", ".join(f"{name} {count:.2f}" for name, count in report["messages"].items()),
    )


if __name__ == "__main__":
    sys.exit(main())
