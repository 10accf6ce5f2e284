"""The `mcpServers` JSON that clients keep, read as servers of ours."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolbus_cli.errors import CommandError

LONGEST_NAME = 32
_HTTP = ("http", "streamable-http", "streamableHttp", "streamable_http")
_CREDENTIAL = re.compile(
    r"token|secret|passw|auth|credential|cookie|(?:^|[_-])(?:api)?key", re.IGNORECASE
)
_SCHEME = re.compile(r"(?:Bearer|Basic|Token) +", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Taken:
    """The servers, in the form of toolbus.yaml; and a sentence for each one left out.

    `moved` holds the environment variables that stand where the file had a credential, each
    with the place it came from: the credential itself is taken over nowhere.
    """

    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What its owner must know or do."""
        told = [f"Set {variable} to {place}." for variable, place in self.moved.items()]
        return [*self.skipped, *told]


def read(path: Path) -> Taken:
    """The servers of a client's file. Raises `CommandError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise CommandError(f"{path} cannot be read ({reason}); name another file.") from error
    except ValueError as error:
        raise CommandError(f"{path} is not JSON ({error}); name another file.") from error
    found = data.get("mcpServers", data.get("servers")) if isinstance(data, dict) else None
    if not isinstance(found, dict):
        raise CommandError(f'{path} has no "mcpServers"; name a client\'s configuration.')
    taken = Taken()
    for name, server in found.items():
        _take(name, server, taken)
    return taken


def as_yaml(taken: Taken) -> str:
    """A whole toolbus.yaml: the servers, and one key that may use all of them."""
    data = {"servers": taken.servers, "keys": {"default": {"tools": ["*"]}}}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _take(name: str, server: Any, taken: Taken) -> None:
    called = _name(name)
    if not isinstance(server, dict):
        taken.skipped.append(f"'{name}' is left out: it has no fields.")
    elif called in taken.servers:
        taken.skipped.append(f"'{name}' is left out: another server is called '{called}' too.")
    elif server.get("disabled") is True:
        taken.skipped.append(f"'{name}' is left out: it is disabled there.")
    elif "url" in server and server.get("type", server.get("transport", "http")) not in _HTTP:
        taken.skipped.append(f"'{name}' is left out: SSE is not supported by this version.")
    elif "url" in server or "command" in server:
        made = _remote(server) if "url" in server else _local(server)
        taken.servers[called] = made
        _move_credentials(called, made, taken.moved)
    else:
        taken.skipped.append(f"'{name}' is left out: it has neither a url nor a command.")


def _remote(server: dict[str, Any]) -> dict[str, Any]:
    headers = _values(server.get("headers"))
    return {"url": str(server["url"])} | ({"headers": headers} if headers else {})


def _local(server: dict[str, Any]) -> dict[str, Any]:
    arguments = server.get("args") or []
    made: dict[str, Any] = {"command": [str(server["command"]), *map(str, arguments)]}
    if env := _values(server.get("env")):
        made["env"] = env
    if cwd := server.get("cwd"):
        made["cwd"] = str(cwd)
    return made


def _values(values: Any) -> dict[str, str]:
    """Text values; `${NAME}` as some clients write it becomes `${env:NAME}`."""
    if not isinstance(values, dict):
        return {}
    return {name: _VARIABLE.sub(r"${env:\1}", str(value)) for name, value in values.items()}


def _move_credentials(server: str, made: dict[str, Any], moved: dict[str, str]) -> None:
    """Put a reference to the environment wherever a credential stands."""
    for section in ("headers", "env"):
        values = made.get(section, {})
        for name, value in values.items():
            if not value or "${env:" in value or not _CREDENTIAL.search(name):
                continue
            variable = name if section == "env" else f"{server}_{name}"
            variable = re.sub(r"\W", "_", variable if variable not in moved else f"{server}_{name}")
            variable = variable.upper() if variable[:1].isalpha() else f"_{variable.upper()}"
            scheme = _SCHEME.match(value)
            values[name] = (scheme[0] if scheme else "") + f"${{env:{variable}}}"
            after = f" after '{scheme[0].strip()}'" if scheme else ""
            moved[variable] = f"what the file has under {server}, {section}, {name}{after}"


def _name(name: str) -> str:
    """The nearest name we allow: no two underscores in a row, 32 characters."""
    plain = re.sub(r"_{2,}", "_", re.sub(r"[^A-Za-z0-9_-]+", "-", name))
    return plain.strip("-_")[:LONGEST_NAME].strip("-_") or "server"
