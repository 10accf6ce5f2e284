"""Command behind `make fuzz ARGS="--seconds 300 --seed 7"`; it prints and stores the counts."""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from figures import keep
from fuzz.fuzzed_gateway import place
from fuzz.fuzzer import fuzz


def main() -> int:
    """Run the fuzzer; return 1 after a wrong answer or a logged traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument(
        "--only", type=int, default=-1, help="send the request of this number alone"
    )
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="toolbus-fuzz-") as directory,
        place(Path(directory)) as found,
    ):
        report = fuzz(found, given.seed, seconds=given.seconds, only=given.only)
        print(report.text(), flush=True)
    if given.only < 0:
        counts = {"sent": report.sent, "endpoints": len(report.kinds), "wrong": len(report.wrong)}
        keep("fuzz", {"asked": vars(given), **counts})
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
