"""Restrict what may be configured over HTTP: local programs and environment variables (no I/O).

An operator's own file may name any command, and any environment variable of executor or audit. Over
HTTP, only commands and variables that policy's settings allow are accepted, so that a leaked admin
key can neither start programs nor send credentials elsewhere. The environment of a configured
process is restricted too, because NODE_OPTIONS or LD_PRELOAD can run any program in it.

Addresses are checked as written, so that the author receives an early error. The service that
connects makes the authoritative check, on the resolved address.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel

from toolbus_common.config import (
    Configuration,
    Guard,
    Issuer,
    Place,
    Plugin,
    Provider,
    Server,
    Sink,
    Webhook,
)
from toolbus_common.config.servers.oauth import REFERENCES
from toolbus_common.config.servers.server import BOUNDS, CREDENTIALS, DESTINATION, FILES
from toolbus_common.config_store.operator_targets import digest_of
from toolbus_common.config_store.redacted_view import DESTINATIONS, restored
from toolbus_common.egress import Egress, EgressError, as_http, target_of
from toolbus_common.egress.policy import STRICT
from toolbus_common.errors import ForbiddenError
from toolbus_common.secrets import references_in
from toolbus_common.secrets.references import ENVIRONMENT

_URL = re.compile(r"(?:http|grpc)s?://", re.IGNORECASE)
_DENIED = (
    "'{}' cannot be configured over HTTP; use 'toolbus apply', or add it to TOOLBUS_ADMIN_{} of "
    "policy"
)
_EXPORT_DENIED = "destinations of events cannot be configured over HTTP; use 'toolbus apply'"
_ANONYMOUS_DENIED = "anonymous access cannot be enabled over HTTP; use 'toolbus apply'"
_AMBIENT_DENIED = (
    "the machine's credentials cannot be configured over HTTP; use 'toolbus apply', or set "
    "credentials"
)
_MODEL_DENIED = "a model that is loaded cannot be configured over HTTP; use 'toolbus apply'"
_PLUGIN_DENIED = "a plugin that Toolbus runs cannot be configured over HTTP; use 'toolbus apply'"
_ROOT_DENIED = "a container cannot run as root over HTTP; use 'toolbus apply'"
_FILE_DENIED = "the path of a file cannot be configured over HTTP; {}use 'toolbus apply'"


@dataclass(frozen=True, slots=True)
class RemoteRestrictions:
    """Patterns of commands, variables and secret references that may be configured over HTTP."""

    commands: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    egress: Egress = STRICT

    def check(self, old: Configuration, new: Configuration) -> None:
        """Check a change over HTTP; `new` may leave out stored secrets.

        Raises:
            ForbiddenError: the change contains what only an operator may configure.
            InvalidConfigurationError: a stored secret would be sent to another destination.

        """
        problems = self.violations(old, restored(new, old))
        if problems:
            raise ForbiddenError(
                f"{problems[0]['location']}: {problems[0]['reason']}.", errors=problems
            )

    def violations(self, old: Configuration, new: Configuration) -> list[dict[str, Any]]:
        """Return the forbidden parts of `new` that `old` did not contain, with locations."""
        found = [
            (f"servers.{name}.{place}", reason)
            for name, server in new.servers.items()
            for place, reason in self._server(server, old.servers.get(name))
        ]
        for name, provider in new.providers.items():
            place, before = f"providers.{name}", old.providers.get(name)
            found += [(f"{place}.{at}", why) for at, why in self._provider(provider, before)]
        for name, guard in new.guards.items():
            place, known = f"guards.{name}", old.guards.get(name)
            found += [(f"{place}.{at}", why) for at, why in self._guard(guard, known)]
        for name, plugin in new.plugins.items():
            place, earlier = f"plugins.{name}", old.plugins.get(name)
            found += [(f"{place}.{at}", why) for at, why in self._plugin(plugin, earlier)]
        for name, hook in new.webhooks.items():
            found += self._secret_entry(f"webhooks.{name}", hook, old.webhooks.get(name))
        for name, issuer in new.issuers.items():
            found += self._secret_entry(f"issuers.{name}", issuer, old.issuers.get(name))
        for name, export in new.exports.items():
            found += self._export(f"exports.{name}", export, old.exports.get(name))
        for name, sink in new.sinks.items():
            found += self._export(f"sinks.{name}", sink, old.sinks.get(name))
        if new.anonymous.on and new.anonymous != old.anonymous:
            found.append(("anonymous", _ANONYMOUS_DENIED))
        found += self._evidence(old, new)
        return [{"location": place, "line": 0, "reason": reason} for place, reason in found]

    def _evidence(self, old: Configuration, new: Configuration) -> Iterator[tuple[str, str]]:
        """Yield violations in the destination of checkpoints and in witnesses."""
        if (place := new.evidence.checkpoints) is not None:
            yield from self._export("evidence.checkpoints", place, old.evidence.checkpoints)
        for witness in new.evidence.witnesses:
            if witness.url not in {each.url for each in old.evidence.witnesses}:
                for _, reason in self._check_destination("url", witness.url):
                    yield f"evidence.witnesses.{witness.name}.url", reason

    def _export(
        self, place: str, entry: Place | Sink, old: Place | Sink | None
    ) -> Iterator[tuple[str, str]]:
        """Yield violations of an entry that sends events and credentials to a destination."""
        if old is None or digest_of(old) != digest_of(entry):
            yield f"{place}.{'url' if isinstance(entry, Sink) else 'to'}", _EXPORT_DENIED
        elif _secret_values(old) != _secret_values(entry):
            for name, value in _secret_values(entry).items():
                yield from self._references(f"{place}.{name}", value)

    def _secret_entry(
        self, place: str, new: Webhook | Issuer, old: Webhook | Issuer | None
    ) -> Iterator[tuple[str, str]]:
        """Yield violations of an entry whose secret is sent to its URL."""
        if old is None or (old.url, old.secret) != (new.url, new.secret):
            yield from self._references(f"{place}.secret", new.secret)
        if old is None or old.url != new.url:
            yield from (
                (f"{place}.url", reason) for _, reason in self._check_destination("url", new.url)
            )

    def _server(self, server: Server, old: Server | None) -> Iterator[tuple[str, str]]:
        if server.is_process and not _same_process(server, old):
            yield from self._programs(server)
        if server.openapi and "://" not in server.openapi and not _same_destination(server, old):
            yield "openapi", _FILE_DENIED.format("name a URL, or ")
        same = old is not None and _same_destination(server, old)
        if not same:
            yield from (
                self._process_oauth(server) if server.is_process else self._new_destination(server)
            )
        for field in CREDENTIALS:
            before = set(getattr(old, field).items()) if same else set()
            for name, value in getattr(server, field).items():
                if (name, value) not in before:
                    if field == "env":
                        yield from self._variables(f"{field}.{name}", [name])
                    yield from self._references(f"{field}.{name}", value)

    def _provider(self, provider: Provider, old: Provider | None) -> Iterator[tuple[str, str]]:
        """Yield violations of a provider, like those of a server that is called over HTTP."""
        destination = DESTINATIONS["providers"]
        same = old is not None and _same_fields(destination, old, provider)
        if not same:
            for field in ("ca", "certificate", "certificate_key"):
                if getattr(provider, field):
                    yield field, _FILE_DENIED.format("")
            yield from self._references("proxy", provider.proxy)
            for field, url in (("url", provider.base_url), ("proxy", provider.proxy)):
                for each in _urls(url):
                    yield from self._check_destination(field, each)
        if provider.ambient and not (same and old is not None and old.ambient):
            yield "ambient", _AMBIENT_DENIED
        for field in ("headers", "credentials"):
            before = set(getattr(old, field).items()) if same else set()
            for name, value in getattr(provider, field).items():
                if (name, value) not in before:
                    yield from self._references(f"{field}.{name}", value)

    def _guard(self, guard: Guard, old: Guard | None) -> Iterator[tuple[str, str]]:
        """Yield violations of a guard that sends content and credentials to a service."""
        same = old is not None and digest_of(old) == digest_of(guard)
        if not same:
            for each in _urls(guard.service_url):
                yield from self._check_destination("url", each)
            if guard.ambient:
                yield "options.ambient", _AMBIENT_DENIED
        model = guard.options.get("model") if guard.kind == "pii" else None
        if model is not None and (old is None or old.options.get("model") != model):
            yield "options.model", _MODEL_DENIED
        for field in ("headers", "credentials"):
            before = set(getattr(old, field).items()) if same else set()
            for name, value in getattr(guard, field).items():
                if (name, value) not in before:
                    yield from self._references(f"{field}.{name}", value)

    def _plugin(self, plugin: Plugin, old: Plugin | None) -> Iterator[tuple[str, str]]:
        """Yield violations of a plugin that sends content and headers to a webhook."""
        if plugin.python and (old is None or (old.python, old.cwd) != (plugin.python, plugin.cwd)):
            yield "python", _PLUGIN_DENIED
        same = old is not None and old.url == plugin.url
        if not same:
            for each in _urls(plugin.url):
                yield from self._check_destination("url", each)
        before = set(old.headers.items()) if same and old is not None else set()
        for name, value in plugin.headers.items():
            if (name, value) not in before:
                yield from self._references(f"headers.{name}", value)

    def _programs(self, server: Server) -> Iterator[tuple[str, str]]:
        """Yield the first program that no pattern allows, and the user root of a container."""
        if server.container and server.container.is_root:
            yield "container.user", _ROOT_DENIED
        for place, program in _programs_of(server):
            if not any(fnmatchcase(program, pattern) for pattern in self.commands):
                yield place, _DENIED.format(program, "COMMANDS")
                return

    def _new_destination(self, server: Server) -> Iterator[tuple[str, str]]:
        """Yield violations of a server that is new or has a new destination."""
        for field in FILES:
            if getattr(server, field):
                yield field, _FILE_DENIED.format("")
        yield from self._references("proxy", server.proxy)
        yield from self._issuer_secrets(server)
        for field in DESTINATION:
            for url in _urls(getattr(server, field)):
                yield from self._check_destination(field, url)

    def _process_oauth(self, server: Server) -> Iterator[tuple[str, str]]:
        """Yield violations in a process's OAuth settings, which could name any issuer."""
        if server.oauth is None:
            return
        yield from self._issuer_secrets(server)
        for url in _urls(server.oauth):
            yield from self._check_destination("oauth", url)
        if server.oauth.env:
            yield from self._variables("oauth.env", [server.oauth.env])

    def _issuer_secrets(self, server: Server) -> Iterator[tuple[str, str]]:
        for issuer, client in server.oauth.clients.items() if server.oauth else ():
            for field in REFERENCES:
                yield from self._references(
                    f"oauth.clients.{issuer}.{field}", getattr(client, field)
                )

    def _check_destination(self, place: str, url: str) -> Iterator[tuple[str, str]]:
        try:
            self.egress.check_written(target_of(as_http(url)))
        except EgressError as error:
            yield place, str(error)

    def _references(self, place: str, value: str) -> Iterator[tuple[str, str]]:
        for each in sorted(references_in([value])):
            # A pattern for variables never matches another secret store.
            prefix = "" if each.store == ENVIRONMENT else f"{each.store}:"
            patterns = [pattern for pattern in self.variables if pattern.startswith(prefix)]
            yield from self._unless(patterns, place, each.named)

    def _variables(self, place: str, names: list[str]) -> Iterator[tuple[str, str]]:
        for name in names:
            yield from self._unless(self.variables, place, name)

    def _unless(self, patterns: Iterable[str], place: str, name: str) -> Iterator[tuple[str, str]]:
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            yield place, _DENIED.format(name, "VARIABLES")


def _secret_values(entry: Place | Sink) -> dict[str, str]:
    """Return the values that are sent to the receiver of the events."""
    field = "credentials" if isinstance(entry, Place) else "headers"
    return {f"{field}.{name}": value for name, value in getattr(entry, field).items()}


def _urls(value: Any) -> Iterator[str]:
    """Yield the URLs in a field of any type."""
    if isinstance(value, str) and _URL.match(value):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _urls(each)
    elif isinstance(value, dict):
        yield from _urls([*value, *value.values()])
    elif isinstance(value, BaseModel):
        yield from _urls(value.model_dump())


def _same_destination(server: Server, old: Server | None) -> bool:
    return old is not None and _same_fields(DESTINATION, old, server)


def _same_fields(fields: tuple[str, ...], one: BaseModel, other: BaseModel) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in fields)


def _same_process(server: Server, old: Server | None) -> bool:
    """Return whether the command and its isolation settings are unchanged."""
    return old is not None and _same_fields((*DESTINATION, "env", *BOUNDS), old, server)


def _programs_of(server: Server) -> Iterator[tuple[str, str]]:
    """Yield the server's programs with their fields, and its directory if a program is relative."""
    program = server.command[0] if server.command else ""
    yield from (("python", each) for each in server.python)
    if server.container:
        yield "container", server.container.image
        return
    if program:
        yield "command", program
    if server.cwd and not program.startswith("/") and ("/" in program or not program):
        yield "cwd", server.cwd
