"""Conversion of an MCP client's servers to the form of toolbus.yaml."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from toolbus_cli.importing.client_config_files import servers_in
from toolbus_cli.importing.command_credentials import (
    CREDENTIAL,
    is_credential,
    without_credentials,
)
from toolbus_cli.importing.environment_variables import environment_variable
from toolbus_cli.importing.gateway_forms import as_client_form
from toolbus_cli.importing.names import server_name

_SSE = ("sse",)
_REMOTE = (
    "http", "streamable-http", "streamableHttp", "streamable_http", "streamableHTTP", "remote",
    *_SSE,
)  # fmt: skip
_LOCAL = ("stdio", "local", "custom", "extension", "command")
_URLS = ("url", "httpUrl", "serverUrl", "uri")
_SCHEME = re.compile(r"(?:Bearer|Basic|Token) +", re.IGNORECASE)
_VARIABLE = re.compile(
    r"\$\{(?:env:)?([A-Za-z_]\w*)(?::-[^}]*)?\}|(?<![\w$])\$([A-Z_][A-Z0-9_]*)\b"
)
_INPUT = re.compile(r"\$\{input:([^}]+)\}")
_OPEN = re.compile(r"\$\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Taken:
    """Imported servers in the form of toolbus.yaml, and messages for the operator.

    `skipped` contains messages about omitted servers and unusable arguments. `moved` maps each
    environment variable that replaces a credential to the location of the credential in the file.
    The credential itself is never copied.
    """

    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """All messages for the operator, including the variables to set."""
        variables = [f"Set {variable} to {place}." for variable, place in self.moved.items()]
        return [*self.skipped, *variables]


def read(path: Path) -> Taken:
    """Convert the servers in a client's configuration file. Raises `CommandError`."""
    taken = Taken()
    for name, server in servers_in(path).items():
        _take(name, server, taken)
    return taken


def as_yaml(taken: Taken) -> str:
    """Return a whole toolbus.yaml: the servers, and one key that may use all of them."""
    data = {"servers": taken.servers, "keys": {"default": {"tools": ["*"]}}}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _take(name: str, server: Any, taken: Taken) -> None:
    called = server_name(name)
    if isinstance(server, dict):
        server = as_client_form(server)
    reason = _left_out(server, called, taken)
    if reason:
        taken.skipped.append(f"'{name}' is left out: {reason}.")
        return
    made = _remote(server, called, taken) if _url(server) else _local(server, called, taken)
    made |= _view(server)
    taken.servers[called] = made
    _move_credentials(called, made, taken.moved)


def _left_out(server: Any, called: str, taken: Taken) -> str:
    """Return why a server cannot be imported; empty if it can."""
    if not isinstance(server, dict):
        return "it has no fields"
    if called in taken.servers:
        return f"another server has the same name '{called}'"
    if server.get("disabled") is True or server.get("enabled") is False:
        return "it is disabled in the file"
    kind = _kind(server)
    if kind and kind not in (*_REMOTE, *_LOCAL):
        return f"a server of the type '{kind}' is part of the client itself"
    return _unusable(server)


def _unusable(server: dict[str, Any]) -> str:
    """Return why the address or the program of a server cannot be configured; empty if it can."""
    image = server.get("image")
    if _has_credential(_url(server)):
        return "its URL contains a credential; use a header with a reference, if it allows that"
    if image and "@sha256:" not in str(image):
        return "its image has no digest; add one, and configure it as a container"
    if not (_url(server) or _words(server) or image):
        return "it has neither a url nor a command"
    return ""


def _kind(server: dict[str, Any]) -> str:
    kind = server.get("type", server.get("transport", server.get("source", "")))
    return kind if isinstance(kind, str) else ""


def _url(server: dict[str, Any]) -> str:
    return next((str(server[each]) for each in _URLS if isinstance(server.get(each), str)), "")


def _remote(server: dict[str, Any], called: str, taken: Taken) -> dict[str, Any]:
    """Return the configuration of a remote server; `sse` is set only for declared HTTP+SSE."""
    headers: dict[str, str] = {}
    for each in ("headers", "http_headers"):
        headers |= _values(server.get(each), called, taken)
    for name, variable in _table(server.get("env_http_headers")).items():
        headers[name] = f"${{env:{variable}}}"
    if isinstance(variable := server.get("bearer_token_env_var"), str):
        headers["Authorization"] = f"Bearer ${{env:{variable}}}"
    made: dict[str, Any] = {"sse" if _kind(server) in _SSE else "url": _url(server)}
    return made | ({"headers": headers} if headers else {})


def _local(server: dict[str, Any], called: str, taken: Taken) -> dict[str, Any]:
    words = _words(server)
    made: dict[str, Any] = {"command": words}
    if image := server.get("image"):
        made = {"container": {"image": str(image), **({"args": words} if words else {})}}
    env: dict[str, str] = {}
    for each in ("env", "envs", "environment"):
        env |= _values(server.get(each), called, taken)
    env |= _values(_table(server.get("command")).get("env"), called, taken)
    for each in ("env_keys", "env_vars"):  # variables that the client inherits
        listed = server.get(each)
        names = listed if isinstance(listed, list) else []
        env |= {name: f"${{env:{name}}}" for name in names if isinstance(name, str)}
    if env:
        made["env"] = env
    if isinstance(cwd := server.get("cwd"), str) and cwd:
        made["cwd"] = cwd
    _note_placeholders(called, words, taken)
    if "command" in made:
        made["command"], secrets = without_credentials(called, words, taken.moved)
        if secrets:
            made["env"] = made.get("env", {}) | secrets
    return made


def _words(server: dict[str, Any]) -> list[str]:
    """Return the command with its arguments, or an empty list if there is no command."""
    command = server.get("command", server.get("cmd"))
    arguments = server.get("args")
    if old := _table(command):  # Zed, before 2025
        command, arguments = old.get("path"), old.get("args")
    first = command if isinstance(command, list) else [command] if command else []
    return [*map(str, first), *map(str, arguments if isinstance(arguments, list) else [])]


def _note_placeholders(called: str, words: list[str], taken: Taken) -> None:
    """Add a message for each placeholder in a command, because placeholders are not replaced."""
    for word in words:
        if found := _OPEN.search(word):
            taken.skipped.append(
                f"'{called}': its command contains {found[0]}; replace it with the value."
            )


def _has_credential(url: str) -> bool:
    """Return whether a URL has a user, or a parameter whose name is that of a credential."""
    try:
        parts = urlsplit(url)
        named = any(CREDENTIAL.search(name) for name, value in parse_qsl(parts.query) if value)
        return bool(parts.password or parts.username) or named
    except ValueError:
        return False


def _view(server: dict[str, Any]) -> dict[str, Any]:
    """Return the client's tool filters and timeout, so that no additional tool is exposed."""
    made: dict[str, Any] = {}
    if only := _texts(server.get("includeTools", server.get("enabled_tools"))):
        made["expose"] = only
    if hidden := _texts(server.get("excludeTools", server.get("disabled_tools"))):
        made["tools"] = {name: {"hidden": True} for name in hidden}
    seconds = server.get("tool_timeout_sec")
    if isinstance(seconds, int | float) and 0 < seconds <= 3600:  # noqa: PLR2004 - an hour
        made["timeout"] = float(seconds)
    return made


def _values(values: Any, called: str, taken: Taken) -> dict[str, str]:
    """Return text values, with references to variables and inputs in Toolbus syntax."""

    def input_variable(found: re.Match[str]) -> str:
        variable = environment_variable(called, found[1])
        taken.moved[variable] = f"the value of the input '{found[1]}' of {called}"
        return f"${{env:{variable}}}"

    return {
        str(name): _VARIABLE.sub(
            lambda found: f"${{env:{found[1] or found[2]}}}", _INPUT.sub(input_variable, str(value))
        )
        for name, value in _table(values).items()
        if value is not None
    }


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _move_credentials(server: str, made: dict[str, Any], moved: dict[str, str]) -> None:
    """Replace each credential with a reference to an environment variable."""
    for section in ("headers", "env"):
        values = made.get(section, {})
        for name, value in values.items():
            if not value or "${env:" in value or not is_credential(name, value):
                continue
            own = environment_variable(name)
            long = environment_variable(server, name)
            variable = long if section == "headers" or own in moved else own
            scheme = _SCHEME.match(value)
            values[name] = (scheme[0] if scheme else "") + f"${{env:{variable}}}"
            after = f" after '{scheme[0].strip()}'" if scheme else ""
            moved[variable] = f"the credential in the file at {server}, {section}, {name}{after}"
