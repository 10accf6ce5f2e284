"""Conversion of an MCP registry's documents (`server.json`) to entries of the catalogue (no I/O).

The format exists in three generations, whose names of fields differ (`registryType`,
`registry_type`, `registry_name`); a list has the servers themselves, or each in `server`.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from pydantic import ValidationError

from toolbus_cli.errors import CommandError
from toolbus_cli.importing.environment_variables import environment_variable
from toolbus_cli.importing.names import server_name
from toolbus_common.server_catalogue.entry import CatalogueEntry

MAX_SERVERS = 20_000
LONGEST = 500  # characters of a text
_TRANSPORTS = {"streamable-http": "http", "http": "http", "sse": "sse"}
_PLACEHOLDER = re.compile(r"\{([^{}]{1,64})\}")
_SECRET = re.compile(r"token|secret|passw|credential|(?:^|[_-])(?:api)?[_-]?key", re.IGNORECASE)
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_NO_ENTRY = "the registry's document has no URL or package that Toolbus can pin"


def servers_of(document: Any) -> list[Mapping[str, Any]]:
    """Return the servers of a `server.json`, of a list of servers, or of a registry's response.

    Raises `CommandError` if the document is none of them.
    """
    found = document.get("servers", [document]) if isinstance(document, dict) else document
    if not isinstance(found, list) or len(found) > MAX_SERVERS:
        raise CommandError(
            f"The registry's document is not a server.json or a list of at most {MAX_SERVERS} of "
            "them; give another file or URL."
        )
    servers = [_unwrapped(each) for each in found if isinstance(each, dict)]
    return [each for each in servers if _text(each, "name")]


def is_latest(server: Mapping[str, Any]) -> bool:
    """Return whether the registry marks the document as the latest version of its server."""
    about = [_first(server, "version_detail", "versionDetail") or {}]
    about += [each for each in (_first(server, "_meta") or {}).values() if isinstance(each, dict)]
    return any(_flag(each, "isLatest", "is_latest") for each in about)


def _unwrapped(listed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the server in an item of a list, with the metadata that the registry adds."""
    server = _first(listed, "server")
    return listed if server is None else {**server, "_meta": listed.get("_meta")}


def version_of(server: Mapping[str, Any]) -> str:
    """Return the version of a server's document; empty if it has none."""
    detail = _first(server, "version_detail", "versionDetail")
    return _text(server, "version") or (_text(detail, "version") if detail else "")


def entries_of(server: Mapping[str, Any], source: str) -> tuple[list[CatalogueEntry], list[str]]:
    """Return the entries of a server's remotes and packages, and why others were left out."""
    entries: list[CatalogueEntry] = []
    problems: list[str] = []
    for fields in _candidates(server, problems):
        try:
            entries.append(CatalogueEntry.model_validate(_common(server, source) | fields))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            problems.append(f"{where} {first['msg'].removeprefix('Value error, ')}".strip())
    return entries, problems or ([] if entries else [_NO_ENTRY])


def _candidates(server: Mapping[str, Any], problems: list[str]) -> Iterator[dict[str, Any]]:
    for remote in _objects(server, "remotes"):
        kind = _text(remote, "type", "transport_type", "transportType")
        if kind in _TRANSPORTS:
            yield _remote(remote, _TRANSPORTS[kind])
        else:
            problems.append(f"a remote has the unknown transport {kind[:40]!r}")
    for package in _objects(server, "packages"):
        fields = _package(package, problems)
        if fields:
            yield fields


def _common(server: Mapping[str, Any], source: str) -> dict[str, Any]:
    name = _text(server, "name")
    repository = _first(server, "repository")
    about = _text(repository, "url") if repository else ""
    found = next((each for each in (source, about) if each.startswith("https://")), "")
    return {
        "name": server_name(name.rpartition("/")[2]),
        "title": (_text(server, "title") or name)[:LONGEST],
        "publisher": (name.partition("/")[0] or name)[:LONGEST],
        "description": (_text(server, "description") or name)[:LONGEST],
        "source": {"url": found or "https://modelcontextprotocol.io", "date": _date(server)},
    }


def _date(server: Mapping[str, Any]) -> date:
    detail = _first(server, "version_detail", "versionDetail")
    text = _text(detail, "release_date", "releaseDate") if detail else ""
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return datetime.now(UTC).date()


def _remote(remote: Mapping[str, Any], transport: str) -> dict[str, Any]:
    settings: dict[str, dict[str, Any]] = {}
    url = _with_settings(_text(remote, "url"), _first(remote, "variables") or {}, settings)
    headers: dict[str, str] = {}
    for header in _objects(remote, "headers"):
        name, value = _text(header, "name"), _text(header, "value")
        if value:
            variables = _first(header, "variables") or {}
            headers[name] = _with_settings(value, variables, settings, secret=_is_secret(header))
        else:
            setting = environment_variable(name)
            settings[setting] = _setting(setting, header)
            headers[name] = f"{{{setting}}}"
    kind = "key" if any(each["secret"] for each in settings.values()) else "none"
    return {
        "url": url, "transport": transport, "headers": headers,
        "settings": tuple(settings.values()), "authorization": {"kind": kind},
    }  # fmt: skip


def _package(package: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    registry = _text(package, "registryType", "registry_type", "registry_name")
    name, version = _text(package, "identifier", "name"), _text(package, "version")
    transport = _first(package, "transport") or {}
    if _text(transport, "type") not in ("", "stdio"):
        problems.append(f"the package {name[:80]} does not use stdio")
        return {}
    settings: dict[str, dict[str, Any]] = {}
    for variable in _objects(package, "environmentVariables", "environment_variables"):
        setting = _setting(_text(variable, "name"), variable)
        settings[setting["name"]] = setting
    arguments = _arguments(package, settings)
    fields = {"transport": "stdio", "settings": tuple(settings.values())}
    if registry in ("npm", "pypi"):
        pinned = {"registry": registry, "name": name, "version": version, "arguments": arguments}
        return fields | {"package": pinned}
    if registry in ("oci", "docker") and _DIGEST.search(name):
        return fields | {"container": name}
    problems.append(
        f"the image {name[:80]} has no digest"
        if registry in ("oci", "docker")
        else f"packages of {registry[:40] or 'an unnamed registry'} are not supported"
    )
    return {}


def _arguments(package: Mapping[str, Any], settings: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Return the package's fixed and required arguments; options for its runtime are ignored."""
    words: list[str] = []
    for argument in _objects(package, "packageArguments", "package_arguments"):
        value = _text(argument, "value")
        if not value and not _flag(argument, "isRequired", "is_required"):
            continue
        variables = _first(argument, "variables") or {}
        name = _text(argument, "name") if _text(argument, "type") == "named" else ""
        if value:
            value = _with_settings(value, variables, settings)
        elif hint := _text(argument, "valueHint", "value_hint") or name:
            setting = _plain_name(hint)
            settings[setting] = _setting(setting, argument)
            value = f"{{{setting}}}"
        words += [each for each in (name, value) if each]
    return tuple(words)


def _with_settings(
    text: str,
    variables: Mapping[str, Any],
    settings: dict[str, dict[str, Any]],
    *,
    secret: bool = False,
) -> str:
    """Return the text with valid names of settings in its placeholders, and add the settings."""

    def placeholder(found: re.Match[str]) -> str:
        about = variables.get(found[1])
        name = _plain_name(found[1])
        settings[name] = _setting(name, about if isinstance(about, dict) else {}, secret=secret)
        return f"{{{name}}}"

    return _PLACEHOLDER.sub(placeholder, text)


def _setting(name: str, about: Mapping[str, Any], *, secret: bool = False) -> dict[str, Any]:
    is_secret = secret or _is_secret(about) or bool(_SECRET.search(name))
    default = "" if is_secret else _text(about, "default", "value")
    return {
        "name": name,
        "description": (_text(about, "description") or name)[:LONGEST],
        "secret": is_secret,
        "required": _flag(about, "isRequired", "is_required", "required"),
        "default": default,
    }


def _is_secret(about: Mapping[str, Any]) -> bool:
    return _flag(about, "isSecret", "is_secret")


def _plain_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "value"
    return (f"_{plain}" if plain[0].isdigit() else plain)[:64]


def _objects(owner: Mapping[str, Any], *names: str) -> list[dict[str, Any]]:
    value = next((owner[name] for name in names if name in owner), None)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _first(owner: Mapping[str, Any], *names: str) -> dict[str, Any] | None:
    return next((owner[name] for name in names if isinstance(owner.get(name), dict)), None)


def _text(owner: Mapping[str, Any], *names: str) -> str:
    return next((owner[name] for name in names if isinstance(owner.get(name), str)), "")


def _flag(owner: Mapping[str, Any], *names: str) -> bool:
    return any(owner.get(name) is True for name in names)
