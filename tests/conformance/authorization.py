"""Leg of the authorization server: the suite is the client, a person consents in a browser."""

import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance import suite
from conformance.gateway import KEY
from conformance.verdicts import Verdict
from harness.clients.form_browser import Browser
from harness.engines.engine import own_port
from harness.gateway.launched_gateway import Launched
from harness.packages.npm import NODE

OUTPUT = suite.WORKSHOP / "out"
REQUIRED = frozenset({"authorization-server-metadata-endpoint", "authorization-code-grant"})
PREFIX = "authorization-server-"  # a directory of the suite
CLIENT, PASSWORD = "conformance", "a password of the conformance run"


@dataclass(frozen=True)
class AuthorizationLeg:
    """Both scenarios of `conformance authorization` against the gateway's own server."""

    name: str
    purpose: str

    def run(self, scenario: str = "") -> Iterator[Verdict]:
        """Return one verdict: the scenarios apply to every revision."""
        if scenario and scenario not in REQUIRED:
            return
        directory = OUTPUT / self.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        launched = Launched(directory / "gateway")
        launched.directory.mkdir()
        launched.configure(
            {
                "keys": {"conformance": {"secret": KEY, "tools": ["*"]}},
                "access": {"everybody": {"tools": ["*"]}},
            }
        )
        try:
            launched.start()
            found = _found(launched, directory / "suite")
        finally:
            launched.stop()
        verdict = Verdict(self.name, found, REQUIRED, {})
        verdict.demand(REQUIRED)
        yield verdict


def _found(launched: Launched, output: Path) -> list[suite.Result]:
    port = own_port()
    _run_command(launched, "accounts", "add", "ann", "--password-stdin", stdin=f"{PASSWORD}\n")
    redirect = f"http://127.0.0.1:{port}/callback"
    _run_command(
        launched, "clients", "add", CLIENT, "--id", CLIENT, "--public", "--redirect", redirect
    )
    endpoint: str = launched.ready["endpoint"]
    base = endpoint.removesuffix("/mcp")
    words = ["authorization", "--url", base, "--client-id", CLIENT, "--resource", endpoint]
    command = [str(NODE), str(suite.HOME / "dist" / "index.js"), *words, "-p", str(port)]
    with subprocess.Popen(
        [*command, "-o", str(output)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        limit = threading.Timer(suite.SUITE_SECONDS, process.kill)
        limit.start()
        try:
            for line in process.stdout or ():
                if line.startswith(f"{base}/oauth/authorize?"):
                    _agree(base, line.strip())
        finally:
            limit.cancel()
    found = suite.results(output)
    return [replace(each, scenario=each.scenario.removeprefix(PREFIX)) for each in found]


def _agree(base: str, url: str) -> None:
    """Sign in and consent at the URL that the suite prints."""
    browser = Browser(base)
    page = browser.answer(browser.sign_in(browser.get(url), "ann", PASSWORD))
    urllib.request.urlopen(page.location, timeout=60).close()


def _run_command(launched: Launched, *words: str, **more: Any) -> None:
    done = launched.toolbus(*words, **more)
    assert done.returncode == 0, done.stderr
