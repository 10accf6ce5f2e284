"""`make bench-evidence`: how long an auditor waits for the verdict on a million facts, offline.

The facts are written, sealed and bundled by the real parts; the verifier runs alone, as an auditor
runs it, once on the bundle as it is and once on one in which a single fact was altered.
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
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from harness.sealed import World, sealed, world

RESULTS = Path(__file__).parent / "results"
BETWEEN = 10_000  # facts between two statements
DEMANDS = {"verify_seconds_per_million": 60.0}


def main() -> int:
    """Run it; 0 when both verdicts are right and the demand is met."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--facts", type=int, default=1_000_000)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="toolbus-evidence-") as name:
        figures = _measured(Path(name), options.facts)
    report = {"at": datetime.now(UTC).isoformat(), "facts": options.facts, **figures}
    text = json.dumps(report, indent=2)
    (RESULTS / f"evidence-{datetime.now(UTC):%Y%m%d-%H%M%S}.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")
    right = figures["sound"] and figures["altered_found"]
    return 0 if right and all(figures[each] <= most for each, most in DEMANDS.items()) else 1


def _measured(directory: Path, facts: int) -> dict[str, Any]:
    log = world(directory, facts // 2)
    sizes = {*range(BETWEEN, facts, BETWEEN), facts}
    log = replace(log, sealed=sealed(log.lines, sizes, log.signer))
    sound = _verified(log)
    middle = facts // 2
    log.lines[middle] = log.lines[middle].replace(b"docs", b"dogs", 1)
    altered = _verified(log)
    return {
        "verify_seconds_per_million": sound["seconds"] * 1e6 / facts,
        "verify_seconds": sound["seconds"],
        "verify_mb": sound["megabytes"],
        "bundle_mb": sound["bundle_mb"],
        "sound": sound["told"]["sound"],
        "altered_found": {each["kind"] for each in altered["told"]["findings"]}
        == {"tree", "altered"},
    }


def _verified(log: World) -> dict[str, Any]:
    """What the verifier says, run by itself from inside the bundle."""
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
