"""What may not be declared from afar: programs to run here, this machine's environment. Pure.

An operator's own file may name any command and any variable of the environment of executor, or of
audit, which signs what it posts to webhooks. Over HTTP only those that the settings of policy
allow: an admin key that leaks must neither start programs nor send credentials elsewhere. What a
process is given as its environment counts too: NODE_OPTIONS or LD_PRELOAD make any program of it.

Addresses are checked as they are written, so that whoever writes one is told at once. What a name
stands for is checked by whoever connects, and that is the check that binds.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel

from toolbus_common.config import Configuration, Issuer, Place, Server, Sink, Webhook
from toolbus_common.config.servers.oauth import REFERENCES
from toolbus_common.config.servers.server import BOUNDS, CREDENTIALS, DESTINATION, FILES
from toolbus_common.config_store.operator_targets import digest_of
from toolbus_common.egress import Egress, EgressError, as_http, target_of
from toolbus_common.egress.policy import STRICT
from toolbus_common.secrets import references_in
from toolbus_common.secrets.references import ENVIRONMENT

_URL = re.compile(r"(?:http|grpc)s?://", re.IGNORECASE)
_REFUSED = (
    "'{}' may not be declared over HTTP; declare it with 'toolbus apply', or have "
    "TOOLBUS_ADMIN_{} of policy name it"
)
_LEAVES = "events would leave to there, which may not be declared over HTTP; use 'toolbus apply'"
_ANONYMOUS = "callers without a key may not be let in over HTTP; use 'toolbus apply'"
_FILE = "is a file, which may not be declared over HTTP; {}use 'toolbus apply'"


@dataclass(frozen=True, slots=True)
class Reach:
    """Patterns of what may be declared over HTTP: commands, variables, references to stores."""

    commands: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    egress: Egress = STRICT

    def faults(self, old: Configuration, new: Configuration) -> list[dict[str, Any]]:
        """What is out of reach in the new declaration and was not there already."""
        found = [
            (f"servers.{name}.{place}", reason)
            for name, server in new.servers.items()
            for place, reason in self._of(server, old.servers.get(name))
        ]
        for name, hook in new.webhooks.items():
            found += self._of_secret(f"webhooks.{name}", hook, old.webhooks.get(name))
        for name, issuer in new.issuers.items():
            found += self._of_secret(f"issuers.{name}", issuer, old.issuers.get(name))
        for name, export in new.exports.items():
            found += self._leaves(f"exports.{name}", export, old.exports.get(name))
        for name, sink in new.sinks.items():
            found += self._leaves(f"sinks.{name}", sink, old.sinks.get(name))
        if new.anonymous.on and new.anonymous != old.anonymous:
            found.append(("anonymous", _ANONYMOUS))
        found += self._of_evidence(old, new)
        return [{"place": place, "line": 0, "reason": reason} for place, reason in found]

    def _of_evidence(self, old: Configuration, new: Configuration) -> Iterator[tuple[str, str]]:
        """Where checkpoints leave to, and who witnesses them."""
        if (place := new.evidence.checkpoints) is not None:
            yield from self._leaves("evidence.checkpoints", place, old.evidence.checkpoints)
        for witness in new.evidence.witnesses:
            if witness.url not in {each.url for each in old.evidence.witnesses}:
                for _, reason in self._led("url", witness.url):
                    yield f"evidence.witnesses.{witness.name}.url", reason

    def _leaves(
        self, place: str, entry: Place | Sink, old: Place | Sink | None
    ) -> Iterator[tuple[str, str]]:
        """Where events leave to is for the operator's file; and which secrets are shown there."""
        if old is None or digest_of(old) != digest_of(entry):
            yield f"{place}.{'url' if isinstance(entry, Sink) else 'to'}", _LEAVES
        elif _shown(old) != _shown(entry):
            for name, value in _shown(entry).items():
                yield from self._referred(f"{place}.{name}", value)

    def _of_secret(
        self, place: str, new: Webhook | Issuer, old: Webhook | Issuer | None
    ) -> Iterator[tuple[str, str]]:
        """What has a secret, which goes where its URL leads."""
        if old is None or (old.url, old.secret) != (new.url, new.secret):
            yield from self._referred(f"{place}.secret", new.secret)
        if old is None or old.url != new.url:
            yield from ((f"{place}.url", reason) for _, reason in self._led("url", new.url))

    def _of(self, server: Server, old: Server | None) -> Iterator[tuple[str, str]]:
        if server.is_process and not _kept(server, old):
            yield from self._programs(server)
        if server.openapi and "://" not in server.openapi and not _unmoved(server, old):
            yield "openapi", _FILE.format("name a URL, or ")
        same = old is not None and _unmoved(server, old)
        if not same:
            yield from self._given_tokens(server) if server.is_process else self._moved(server)
        for field in CREDENTIALS:
            before = set(getattr(old, field).items()) if same else set()
            for name, value in getattr(server, field).items():
                if (name, value) not in before:
                    if field == "env":
                        yield from self._variables(f"{field}.{name}", [name])
                    yield from self._referred(f"{field}.{name}", value)

    def _programs(self, server: Server) -> Iterator[tuple[str, str]]:
        """The first word of what it starts that is not named."""
        for place, program in _started(server):
            if not any(fnmatchcase(program, pattern) for pattern in self.commands):
                yield place, _REFUSED.format(program, "COMMANDS")
                return

    def _moved(self, server: Server) -> Iterator[tuple[str, str]]:
        """What is wrong with where a server leads that led elsewhere, or was not there."""
        for field in FILES:
            if getattr(server, field):
                yield field, _FILE.format("")
        yield from self._referred("proxy", server.proxy)
        yield from self._shown_to_issuers(server)
        for field in DESTINATION:
            for url in _urls(getattr(server, field)):
                yield from self._led(field, url)

    def _given_tokens(self, server: Server) -> Iterator[tuple[str, str]]:
        """What is wrong with how a process gets its tokens: whoever gives them may be anybody."""
        if server.oauth is None:
            return
        yield from self._shown_to_issuers(server)
        for url in _urls(server.oauth):
            yield from self._led("oauth", url)
        if server.oauth.env:
            yield from self._variables("oauth.env", [server.oauth.env])

    def _shown_to_issuers(self, server: Server) -> Iterator[tuple[str, str]]:
        for issuer, client in server.oauth.clients.items() if server.oauth else ():
            for field in REFERENCES:
                yield from self._referred(f"oauth.clients.{issuer}.{field}", getattr(client, field))

    def _led(self, place: str, url: str) -> Iterator[tuple[str, str]]:
        try:
            self.egress.check_written(target_of(as_http(url)))
        except EgressError as error:
            yield place, str(error)

    def _referred(self, place: str, value: str) -> Iterator[tuple[str, str]]:
        for each in sorted(references_in([value])):
            # A pattern for variables, however wide, opens no other store.
            prefix = "" if each.store == ENVIRONMENT else f"{each.store}:"
            patterns = [pattern for pattern in self.variables if pattern.startswith(prefix)]
            yield from self._unless(patterns, place, each.named)

    def _variables(self, place: str, names: list[str]) -> Iterator[tuple[str, str]]:
        for name in names:
            yield from self._unless(self.variables, place, name)

    def _unless(self, patterns: Iterable[str], place: str, name: str) -> Iterator[tuple[str, str]]:
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            yield place, _REFUSED.format(name, "VARIABLES")


def _shown(entry: Place | Sink) -> dict[str, str]:
    """What is shown to whoever takes the events."""
    field = "credentials" if isinstance(entry, Place) else "headers"
    return {f"{field}.{name}": value for name, value in getattr(entry, field).items()}


def _urls(value: Any) -> Iterator[str]:
    """The URLs in a field, however it holds them."""
    if isinstance(value, str) and _URL.match(value):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _urls(each)
    elif isinstance(value, dict):
        yield from _urls([*value, *value.values()])
    elif isinstance(value, BaseModel):
        yield from _urls(value.model_dump())


def _unmoved(server: Server, old: Server | None) -> bool:
    return old is not None and _same(DESTINATION, old, server)


def _same(fields: tuple[str, ...], one: Server, other: Server) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in fields)


def _kept(server: Server, old: Server | None) -> bool:
    """Whether it runs what it ran, held to what it was held to."""
    return old is not None and _same((*DESTINATION, "env", *BOUNDS), old, server)


def _started(server: Server) -> Iterator[tuple[str, str]]:
    """What says which program runs; its directory too, where the program is found from there."""
    program = server.command[0] if server.command else ""
    yield from (("python", each) for each in server.python)
    if server.container:
        yield "container", server.container.image
        return
    if program:
        yield "command", program
    if server.cwd and not program.startswith("/") and ("/" in program or not program):
        yield "cwd", server.cwd
