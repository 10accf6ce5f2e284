"""Command behind `make conformance [LEG=name[,name]] [SCENARIO=name]`; prints a table per leg."""

import argparse
import sys

from conformance import suite
from conformance.legs import LEGS
from conformance.verdicts import Verdict
from figures import keep


def main() -> int:
    """Run legs; return 1 after an unexpected failure or an unexpected pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leg", default="", help=f"of {', '.join(LEGS)}; all when empty")
    parser.add_argument("--scenario", default="", help="one scenario's name")
    parser.add_argument("--quiet", action="store_true", help="show only what failed")
    given = parser.parse_args()
    names = [name for name in given.leg.split(",") if name] or list(LEGS)
    if unknown := set(names) - set(LEGS):
        parser.error(f"no such leg: {', '.join(sorted(unknown))}; there are {', '.join(LEGS)}")
    suite.install()
    verdicts: list[Verdict] = []
    with suite.alone():
        for name in names:
            print(f"\n== {name}: {LEGS[name].purpose}", flush=True)
            for verdict in LEGS[name].run(given.scenario):
                verdict.print(quiet=given.quiet)
                verdicts.append(verdict)
    return _close(verdicts, is_whole=set(names) == set(LEGS) and not given.scenario)


def _close(verdicts: list[Verdict], *, is_whole: bool) -> int:
    print()
    for verdict in verdicts:
        print(f"{'ok  ' if verdict.fine else 'BAD '} {verdict.title}: {verdict.count}")
    failed = sum(
        len(verdict.unexpected) + len(verdict.complaints) + len(verdict.stale)
        for verdict in verdicts
    )
    passed = sum(len(verdict.results) - len(verdict.unexpected) for verdict in verdicts)
    print(f"{passed} passed, {failed} failed")
    if is_whole:
        keep("conformance", {"legs": len(verdicts), "passed": passed, "failed": failed})
    return 0 if verdicts and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
