"""The configuration of a server from an entry and the operator's values (no I/O)."""

from collections.abc import Mapping
from typing import Any

from toolbus_common.secrets import REFERENCE
from toolbus_common.server_catalogue.entry import PLACEHOLDER, CatalogueEntry, Setting


class SettingError(Exception):
    """A value is missing, unknown, or a secret in plain text. The message contains no value."""


def server_of(
    entry: CatalogueEntry, values: Mapping[str, str], *, installed: bool = False
) -> dict[str, Any]:
    """Return the fields of a server, as in toolbus.yaml.

    A secret without a value becomes a reference to the environment variable of its name. The
    program is fetched by its package manager at the entry's version; with `installed`, the command
    of the package is started instead, and may reach only the hosts that the entry names.

    Raises:
        SettingError: a setting is unknown, missing or invalid.

    """
    known = {each.name for each in entry.settings}
    if unknown := sorted(set(values) - known):
        names = ", ".join(sorted(known)) or "none"
        raise SettingError(f"'{entry.name}' has no setting '{unknown[0]}'; it has: {names}.")
    filled = {each.name: _value(each, values, entry) for each in entry.settings}
    server = _remote(entry, filled) if entry.url else _program(entry, filled, installed=installed)
    if entry.reads is not None:
        server["reads"] = list(entry.reads)
    if entry.writes is not None:
        server["writes"] = entry.writes
    return server


def missing_settings(entry: CatalogueEntry, values: Mapping[str, str]) -> list[Setting]:
    """Return the settings that need a value and have none; secrets have a reference by default."""
    return [
        each
        for each in entry.settings
        if each.required and not each.secret and not each.default and not values.get(each.name)
    ]


def _value(setting: Setting, values: Mapping[str, str], entry: CatalogueEntry) -> str:
    value = values.get(setting.name, "")
    if any(ord(character) < ord(" ") for character in value):
        raise SettingError(f"The value of {setting.name} has a control character; remove it.")
    if setting.secret:
        if value and not REFERENCE.fullmatch(value):
            raise SettingError(
                f"{setting.name} is a secret, and its value is not a reference; write a reference "
                f"such as ${{env:{setting.name}}} or ${{vault:path#field}}."
            )
        return value or (f"${{env:{setting.name}}}" if setting.required else "")
    if not (value or setting.default) and setting.required:
        raise SettingError(
            f"'{entry.name}' needs {setting.name} ({setting.description}); pass --set "
            f"{setting.name}=VALUE."
        )
    return value or setting.default


def _remote(entry: CatalogueEntry, values: Mapping[str, str]) -> dict[str, Any]:
    field = "sse" if entry.transport == "sse" else "url"
    server: dict[str, Any] = {field: _filled(entry.url, values)}
    headers = {
        name: _filled(text, values)
        for name, text in entry.headers.items()
        if all(values[each] for each in PLACEHOLDER.findall(text))
    }
    if headers:
        server["headers"] = headers
    if entry.authorization.kind == "oauth":
        scopes = list(entry.authorization.scopes)
        server["oauth"] = {"scopes": scopes} if scopes else {}
    return server


def _program(
    entry: CatalogueEntry, values: Mapping[str, str], *, installed: bool
) -> dict[str, Any]:
    server: dict[str, Any] = {}
    package = entry.package
    if package is None:
        server["container"] = {"image": entry.container}
    else:
        arguments = (_filled(each, values) for each in package.arguments)
        server["command"] = [*_start(entry, installed=installed), *arguments]
    env = {each.name: values[each.name] for each in entry.variables if values[each.name]}
    if env:
        server["env"] = env
    if entry.cwd:
        server["cwd"] = _filled(entry.cwd, values)
    if installed and package is not None and entry.network != "any":
        network = entry.network
        server["network"] = network if isinstance(network, str) else {"hosts": list(network.hosts)}
    return server


def _start(entry: CatalogueEntry, *, installed: bool) -> list[str]:
    """Return the words that start the package at its version, before its arguments."""
    package = entry.package
    if package is None or installed:
        return [package.command_name] if package else []
    if package.registry == "npm":
        return ["npx", "-y", f"{package.name}@{package.version}"]
    return ["uvx", "--from", f"{package.name}=={package.version}", package.command_name]


def _filled(text: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: values[found[1]], text)
