"""The legs: which server or client stands under test, and what is asked of it."""

import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conformance import suite
from conformance.gateway import KEY, UPSTREAM, gateway, shim
from conformance.judge import Verdict, direct_run, expected
from conformance.suite import REVISIONS, Result
from conformance.upstream import FixtureServer
from conformance.vacuity import unseen

OUTPUT = suite.WORKSHOP / "out"
MODERN, LEGACY = REVISIONS
AGENT = Path(__file__).with_name("agent_through_gateway.py")


@dataclass(frozen=True)
class ServerLeg:
    """Server scenarios through a gateway, or directly when there is no path.

    `extras` also runs what a revision does not require: extensions, headers, schemas.
    """

    name: str
    tells: str
    options: tuple[str, ...] = ()
    path: str = ""
    prefix: str = ""
    revisions: tuple[str, ...] = REVISIONS
    extras: bool = True

    def run(self, scenario: str = "") -> Iterator[Verdict]:
        """A verdict for each revision."""
        directory = OUTPUT / self.name
        shutil.rmtree(directory, ignore_errors=True)
        upstream = FixtureServer(directory / "upstream", *self.options)
        upstream.start()
        try:
            if not self.path:
                yield from self._verdicts(
                    f"http://localhost:{upstream.port}/mcp", upstream, scenario
                )
                return
            with (
                gateway(directory / "gateway", upstream.url) as launched,
                shim(launched, self.path, self.prefix) as url,
            ):
                yield from self._verdicts(url, upstream, scenario)
        finally:
            upstream.kill()

    def _verdicts(self, url: str, upstream: FixtureServer, scenario: str) -> Iterator[Verdict]:
        for revision in self.revisions:
            required = suite.requirements(revision)
            known = {*required.server, *required.extra_server}
            if scenario and scenario not in known:
                continue
            upstream.forget()
            output = OUTPUT / self.name / revision
            found = suite.run_server(url, revision, output, scenario)
            if not self.extras and not scenario:
                found = [result for result in found if result.scenario in required.server]
            verdict = _verdict(self.name, revision, found, required.server)
            verdict.compare(direct_run(revision))
            if not scenario:
                verdict.demand(required.server)
                verdict.complaints += unseen(revision, upstream.seen())
            yield verdict


@dataclass(frozen=True)
class ClientLeg:
    """Client scenarios: the suite plays an upstream, and an agent calls it through a gateway."""

    name: str
    tells: str

    def run(self, scenario: str = "") -> Iterator[Verdict]:
        """A verdict for each revision."""
        directory = OUTPUT / self.name
        shutil.rmtree(directory, ignore_errors=True)
        command = shlex.join([sys.executable, str(AGENT)])
        with gateway(directory / "gateway", "") as launched:
            environment = {
                "TOOLBUS_CONFORMANCE_ENDPOINT": launched.ready["endpoint"],
                "TOOLBUS_CONFORMANCE_KEY": KEY,
                "TOOLBUS_CONFORMANCE_DIRECTORY": str(launched.directory),
            }
            for revision in REVISIONS:
                required = _without_authorization(suite.requirements(revision).client)
                extra = _without_authorization(suite.requirements(revision).extra_client)
                found: list[Result] = []
                for name in [*required, *extra]:
                    if scenario in ("", name):
                        output = directory / revision / name
                        found += suite.run_client(command, revision, name, output, environment)
                if found:
                    yield _verdict(self.name, revision, found, required)


def _without_authorization(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that need no OAuth client."""
    return tuple(name for name in names if not name.startswith("auth/"))


def _verdict(leg: str, revision: str, found: list[Result], required: tuple[str, ...]) -> Verdict:
    title = f"{leg}, {revision}"
    return Verdict(title, found, frozenset(required), expected(leg, revision))


Leg = ServerLeg | ClientLeg
_THROUGH = f"/mcp/{UPSTREAM}"

LEGS: dict[str, Leg] = {
    leg.name: leg
    for leg in (
        ServerLeg("fixture", "the fixture itself, no gateway"),
        ServerLeg("passthrough", "an endpoint of one server, names unchanged", path=_THROUGH),
        ServerLeg("lax", "the gateway checks what the upstream does not", ("--lax",), _THROUGH),
        ServerLeg(
            "namespaced",
            "the shared endpoint, names prefixed",
            path="/mcp",
            prefix=f"{UPSTREAM}__",
        ),
        ServerLeg(
            "modern-over-legacy",
            "a stateless client, a server of the handshake era",
            ("--era", "legacy"),
            _THROUGH,
            revisions=(MODERN,),
            extras=False,
        ),
        ServerLeg(
            "legacy-over-modern",
            "a client of the handshake era, a stateless server",
            ("--era", "modern"),
            _THROUGH,
            revisions=(LEGACY,),
            extras=False,
        ),
        ServerLeg(
            "modern-over-modern",
            "both stateless, no other choice",
            ("--era", "modern"),
            _THROUGH,
            revisions=(MODERN,),
            extras=False,
        ),
        ServerLeg(
            "legacy-over-legacy",
            "both of the handshake era, no other choice",
            ("--era", "legacy"),
            _THROUGH,
            revisions=(LEGACY,),
            extras=False,
        ),
        ClientLeg("client", "the gateway as a client of the suite's servers"),
    )
}
