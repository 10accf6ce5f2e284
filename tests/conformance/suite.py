"""`@modelcontextprotocol/conformance`, pinned: installation, runs and results."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from harness.packages.npm import NODE, NPM

VERSION = "0.2.0-alpha.12"
PACKAGE = "@modelcontextprotocol/conformance"
WORKSHOP = Path(__file__).parents[2] / ".conformance"
SCENARIO_MS = 15_000
SUITE_SECONDS = 600
FAILED = "agent failed: "
REVISIONS = ("2026-07-28", "2025-11-25")
HOME = WORKSHOP / "suite" / "node_modules" / PACKAGE
_STAMP = re.compile(r"^(?:server-)?(?P<name>.+)-\d{4}-\d\d-\d\dT[\d-]+Z$")


@dataclass(frozen=True)
class Result:
    """The result of one scenario."""

    scenario: str
    passed: int
    failures: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, str], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the scenario made no check."""
        return not (self.passed or self.failures)


@dataclass(frozen=True)
class Requirements:
    """The frozen set of one revision: required scenarios, and informational ones."""

    server: tuple[str, ...]
    client: tuple[str, ...]
    extra_server: tuple[str, ...]
    extra_client: tuple[str, ...]


def install() -> None:
    """Install the suite if it is missing."""
    found = HOME / "package.json"
    if found.exists() and json.loads(found.read_text())["version"] == VERSION:
        return
    shutil.rmtree(WORKSHOP / "suite", ignore_errors=True)
    (WORKSHOP / "suite").mkdir(parents=True)
    command = [str(NODE), str(NPM), "install", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(
        [*command, "--save-exact", f"{PACKAGE}@{VERSION}"],
        cwd=WORKSHOP / "suite",
        env={**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        timeout=SUITE_SECONDS,
    )


@contextmanager
def alone() -> Iterator[None]:
    """Ensure that no other run is active in this directory; runs would use each other's gateways.

    Raises `SystemExit` if one is.
    """
    with (WORKSHOP / "lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SystemExit(f"Another run is under way in {WORKSHOP}; wait for it.") from error
        yield


def requirements(revision: str) -> Requirements:
    """Return the requirements of a revision from the suite's own file."""
    document = yaml.safe_load((HOME / "requirements" / f"{revision}.yaml").read_text())
    extras: dict[str, list[str]] = {"server": [], "client": []}
    for entry in document.get("not_scored", []):
        extras.setdefault(entry["leg"], []).append(entry["scenario"])
    return Requirements(
        tuple(document["server"]),
        tuple(document["client"]),
        tuple(extras["server"]),
        tuple(extras["client"]),
    )


def run_server(url: str, revision: str, output: Path, scenario: str = "") -> list[Result]:
    """Run a revision's server scenarios, or one of any kind, against a URL."""
    chosen = (
        ["--scenario", scenario, "--spec-version", revision, "--force"]
        if scenario
        else ["--requirements", revision]
    )
    _run(["server", "--url", url, *chosen], output, {})
    return results(output)


def run_client(
    command: str, revision: str, scenario: str, output: Path, environment: Mapping[str, str]
) -> list[Result]:
    """Run one client scenario: the suite starts a server and the command that calls it."""
    chosen = ["--scenario", scenario, "--spec-version", revision, "--force"]
    words = ["client", "--command", command, *chosen, "--timeout", str(4 * SCENARIO_MS)]
    code = _run(words, output, environment)
    found = results(output) or [
        Result(scenario, 0, (("no-result", "The suite reported nothing."),))
    ]
    if code == 0 or any(result.failures for result in found):
        return found
    # The suite counts a failed client without a failed check.
    lines = (output / "log").read_text().splitlines()
    failures = [line.partition(FAILED)[2] for line in lines if FAILED in line]
    outcome = failures[-1] if failures else f"its log says why: {output / 'log'}"
    return [replace(result, failures=(("client-failed", outcome),)) for result in found]


def _run(words: Iterable[str], output: Path, environment: Mapping[str, str]) -> int:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    timeout = [] if "--timeout" in words else ["--timeout", str(SCENARIO_MS)]
    with (output / "log").open("wb") as log:
        done = subprocess.run(
            [str(NODE), str(HOME / "dist" / "index.js"), *words, *timeout, "-o", str(output)],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            check=False,
            timeout=SUITE_SECONDS,
        )
    return done.returncode


def results(output: Path) -> list[Result]:
    """Return the results of a run in order."""
    found = []
    for file in sorted(output.rglob("checks.json"), key=lambda file: file.stat().st_mtime_ns):
        match = _STAMP.match(str(file.parent.relative_to(output)))
        name = match["name"] if match else file.parent.name
        found.append(_result(name, json.loads(file.read_text())))
    return found


def _result(scenario: str, checks: list[dict[str, Any]]) -> Result:
    def messages(status: str) -> tuple[tuple[str, str], ...]:
        return tuple(
            (str(check["id"]), str(check.get("errorMessage") or check.get("description")))
            for check in checks
            if check["status"] == status
        )

    return Result(scenario, len(messages("SUCCESS")), messages("FAILURE"), messages("WARNING"))
