"""Offline verification of a million events (`make bench-evidence`).

The real parts write, seal and bundle the events. The verifier runs alone, as an auditor runs it:
once on the bundle, and once on a copy with one altered event. In addition every kind of tampering
is tried on a small log.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from figures import keep, met, row, show
from harness.audit.log_tampering import TAMPERED, named
from harness.audit.sealed_logs import SealedLog, sealed, sealed_log

BETWEEN = 10_000  # events between two checkpoints
MAX_SECONDS = 60.0  # for a million events


def main() -> int:
    """Run the benchmark; return 0 if both verdicts are right and the demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="toolbus-evidence-") as name:
        figures = _measured(Path(name), options.events)
        figures["named"] = {
            what: named(Path(name) / str(number), what) for number, what in enumerate(TAMPERED)
        }
    per_million = figures["verify_seconds"] * 1e6 / options.events
    rows = [
        row("verified offline: seconds per million events", per_million, "<=", MAX_SECONDS),
        row("unchanged bundle: valid", figures["valid"], ">=", 1),
        row("one altered event: the only finding", figures["altered_found"], ">=", 1),
        row("kinds of tampering: found", sum(figures["named"].values()), ">=", len(TAMPERED)),
    ]
    for what, each in figures["named"].items():
        sys.stdout.write(f"{'named' if each else 'NOT NAMED':10} {what}\n")
    show(rows)
    keep("evidence", {"events": options.events, **figures, "rows": rows})
    return 0 if met(rows) else 1


def _measured(directory: Path, events: int) -> dict[str, Any]:
    log = sealed_log(directory, events // 2)
    sizes = {*range(BETWEEN, events, BETWEEN), events}
    log = replace(log, sealed=sealed(log.lines, sizes, log.signer))
    sound = _verified(log)
    middle = events // 2
    log.lines[middle] = log.lines[middle].replace(b"docs", b"dogs", 1)
    altered = _verified(log)
    return {
        "verify_seconds": sound["seconds"],
        "verify_mb": sound["megabytes"],
        "bundle_mb": sound["bundle_mb"],
        "valid": sound["told"]["valid"],
        "altered_found": {each["kind"] for each in altered["told"]["findings"]}
        == {"tree", "altered"},
    }


def _verified(log: SealedLog) -> dict[str, Any]:
    """Run the verifier from inside the bundle and return its report."""
    path = asyncio.run(log.written())
    with zipfile.ZipFile(path) as bundle:
        bundle.extract("verify.py", log.directory)
    began = monotonic()
    done = subprocess.run(
        [sys.executable, "-I", str(log.directory / "verify.py"), str(path), "--json",
         "--key", log.signer.verifier],
        capture_output=True,
        check=False,
    )  # fmt: skip
    return {
        "seconds": monotonic() - began,
        "megabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "bundle_mb": path.stat().st_size / 1e6,
        "told": json.loads(done.stdout),
    }


if __name__ == "__main__":
    sys.exit(main())
