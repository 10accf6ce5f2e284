"""Legs: a server or client under test, with its scenarios."""

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conformance import suite
from conformance.authorization import AuthorizationLeg
from conformance.gateway import KEY, UPSTREAM, gateway, shim
from conformance.oauth_scenarios import scenario_server
from conformance.reserved_ports import Spent
from conformance.scenario_client import PORT
from conformance.suite import REVISIONS, Result
from conformance.upstream import FixtureServer
from conformance.vacuity import unseen
from conformance.verdicts import Verdict, direct_run, expected
from harness.gateway.launched_gateway import Launched

OUTPUT = suite.WORKSHOP / "out"
MODERN, LEGACY = REVISIONS
# The suite uses a client metadata document without a server, and loopback addresses.
ALLOWED = {
    "EGRESS_ALLOW": "127.0.0.0/8 ::1",
    "OAUTH_CLIENT_DOCUMENT": "https://conformance-test.local/client-metadata.json",
}
AGENT = Path(__file__).with_name("agent_through_gateway.py")
ERRAND = Path(__file__).with_name("scenario_client.py")


@dataclass(frozen=True)
class ServerLeg:
    """Server scenarios through a gateway, or directly without a path.

    `extras` also runs what a revision does not require: extensions, headers, schemas.
    """

    name: str
    purpose: str
    options: tuple[str, ...] = ()
    path: str = ""
    prefix: str = ""
    revisions: tuple[str, ...] = REVISIONS
    extras: bool = True

    def run(self, scenario: str = "") -> Iterator[Verdict]:
        """Return a verdict for each revision."""
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
    """Client scenarios: the suite is an upstream, and an agent calls it through a gateway."""

    name: str
    purpose: str
    oauth: bool = False  # only these scenarios

    def run(self, scenario: str = "") -> Iterator[Verdict]:
        """Return a verdict for each revision."""
        directory = OUTPUT / self.name
        shutil.rmtree(directory, ignore_errors=True)
        with (
            gateway(directory / "gateway", "", **(ALLOWED if self.oauth else {})) as launched,
            self._client(launched) as (command, environment),
            Spent() as spent,
        ):
            for revision in REVISIONS:
                required = self._concerned(suite.requirements(revision).client)
                extra = self._concerned(suite.requirements(revision).extra_client)
                found: list[Result] = []
                for name in [*required, *extra]:
                    if scenario in ("", name):
                        output = directory / revision / name
                        found += suite.run_client(command, revision, name, output, environment)
                        spent.hold(output)
                if found:
                    yield _verdict(self.name, revision, found, required)

    def _concerned(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name.startswith("auth/") == self.oauth)

    @contextmanager
    def _client(self, launched: Launched) -> Iterator[tuple[str, dict[str, str]]]:
        """Return the command that the suite runs as its client, and its environment."""
        if self.oauth:
            with scenario_server(launched) as port:
                yield shlex.join([sys.executable, "-I", "-S", str(ERRAND)]), {PORT: str(port)}
            return
        environment = {
            "TOOLBUS_CONFORMANCE_ENDPOINT": launched.ready["endpoint"],
            "TOOLBUS_CONFORMANCE_KEY": KEY,
            "TOOLBUS_CONFORMANCE_DIRECTORY": str(launched.directory),
        }
        yield shlex.join([sys.executable, str(AGENT)]), environment


def _verdict(leg: str, revision: str, found: list[Result], required: tuple[str, ...]) -> Verdict:
    title = f"{leg}, {revision}"
    return Verdict(title, found, frozenset(required), expected(leg, revision))


Leg = ServerLeg | ClientLeg | AuthorizationLeg
_THROUGH = f"/mcp/{UPSTREAM}"

LEGS: dict[str, Leg] = {
    leg.name: leg
    for leg in (
        ServerLeg("fixture", "the fixture itself, no gateway"),
        ServerLeg("passthrough", "an endpoint of one server, names unchanged", path=_THROUGH),
        ServerLeg(
            "classic",
            "a server of both families whose tools ask with a handshake alone",
            ("--classic",),
            _THROUGH,
            extras=False,
        ),
        ServerLeg("lax", "the gateway checks what the upstream does not", ("--lax",), _THROUGH),
        ServerLeg(
            "namespaced",
            "the shared endpoint, names prefixed",
            path="/mcp",
            prefix=f"{UPSTREAM}__",
        ),
        ServerLeg(
            "modern-over-legacy",
            "a stateless client, a server of the handshake family",
            ("--family", "legacy"),
            _THROUGH,
            revisions=(MODERN,),
            extras=False,
        ),
        ServerLeg(
            "legacy-over-modern",
            "a client of the handshake family, a stateless server",
            ("--family", "modern"),
            _THROUGH,
            revisions=(LEGACY,),
            extras=False,
        ),
        ServerLeg(
            "modern-over-modern",
            "both stateless, no other choice",
            ("--family", "modern"),
            _THROUGH,
            revisions=(MODERN,),
            extras=False,
        ),
        ServerLeg(
            "legacy-over-legacy",
            "both of the handshake family, no other choice",
            ("--family", "legacy"),
            _THROUGH,
            revisions=(LEGACY,),
            extras=False,
        ),
        ClientLeg("client", "the gateway as a client of the suite's servers"),
        ClientLeg("client-oauth", "the gateway as an OAuth client", oauth=True),
        AuthorizationLeg("authorization", "the gateway as an authorization server"),
    )
}
