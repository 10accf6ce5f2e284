"""Commands of the catalogue of servers: search, show, and add an entry."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from toolbus_cli.catalogue import selection
from toolbus_cli.commands.new_servers import added
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.config_file import ConfigurationError
from toolbus_cli.errors import CommandError
from toolbus_cli.importing import yaml_insert
from toolbus_common.config_store.loading.loader import load
from toolbus_common.definitions.visible_text import printable
from toolbus_common.secrets import references_in
from toolbus_common.server_catalogue.entry import CatalogueEntry, Setting
from toolbus_common.server_catalogue.server_builder import (
    SettingError,
    missing_settings,
    server_of,
)

SOURCE = "catalogue"
Registry = Annotated[
    str,
    typer.Option(
        "--registry", help="An MCP registry's URL, or a file with its servers or a server.json."
    ),
]
Version = Annotated[
    str, typer.Option("--version", help="The version to pin; default: the entry's own.")
]
Transport = Annotated[
    str, typer.Option("--transport", help="With --registry: http, sse or stdio; default: any.")
]


def search(
    text: Annotated[str, typer.Argument(help="Words that the entry contains; default: all.")] = "",
    *,
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Search the catalogue of servers, or an MCP registry."""
    found = selection.found(text, registry)
    if as_json:
        show_json([_shown(each) for each in found])
        return
    rows = [
        (each.title if registry else each.name, each.transport, each.publisher, each.description)
        for each in found
    ]
    show_table(("name", "transport", "publisher", "description"), rows, "No entry matches.")


def show(
    name: Annotated[str, typer.Argument(help="The entry's name; in a registry, the full name.")],
    *,
    registry: Registry = "",
    version: Version = "",
    transport: Transport = "",
    as_json: AsJson = False,
) -> None:
    """Show an entry: its settings, labels, suggested grants, and the document it comes from."""
    entry = selection.chosen(name, registry, version, transport)
    if as_json:
        show_json(_shown(entry))
    else:
        text = yaml.safe_dump(_shown(entry), sort_keys=False, allow_unicode=True, width=100)
        say(*(printable(line) for line in text.splitlines()))


def add(  # noqa: PLR0913 - one for each option
    name: Annotated[str, typer.Argument(help="The entry's name; in a registry, the full name.")],
    *,
    called: Annotated[
        str, typer.Option("--name", help="The server's name; default: the entry's.")
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="NAME=VALUE of a setting; a secret's value is a reference, such as "
            "${env:NAME} (the default), ${file:…} or ${vault:…}; repeatable.",
        ),
    ] = None,
    installed: Annotated[
        bool,
        typer.Option(
            "--installed",
            help="Start the installed program, without npx or uvx, and restrict its network.",
        ),
    ] = False,
    registry: Registry = "",
    version: Version = "",
    transport: Transport = "",
    show_only: Annotated[
        bool, typer.Option("--print", help="Only print the server as YAML.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Add the server to this toolbus.yaml.")
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Add a server from the catalogue, at a fixed version, to the current configuration.

    At a terminal, the command asks for the settings that are missing. The server's tools are
    treated like those of a server that you configure yourself: the first listing is pinned.
    """
    entry = selection.chosen(name, registry, version, transport)
    server_name = called or entry.name
    values = _values(settings or [])
    if sys.stdin.isatty():
        values |= {each.name: _prompted(each) for each in _open(entry, values)}
    try:
        server = server_of(entry, values, installed=installed)
    except SettingError as error:
        raise CommandError(str(error)) from error
    document = yaml.safe_dump({"servers": {server_name: server}}, sort_keys=False)
    loaded = load(document, os.environ)
    if loaded.problems:
        raise ConfigurationError(Path(f"catalogue/{entry.name}"), loaded.problems)
    if output is not None:
        yaml_insert.write(output, yaml_insert.placed(output, server_name, server))
    elif not show_only:
        added({server_name: server}, loaded.configuration, state_dir, SOURCE)
    steps = _next_steps(entry, server_name, server)
    if as_json:
        shown = {"name": server_name, "server": server, "added": not show_only, "next": steps}
        show_json(shown)
        return
    if show_only:
        say(document.rstrip())
    else:
        say(f"Added the server '{server_name}'{f' to {output}' if output else ''}.")
    for step in steps:
        typer.echo(printable(step), err=True)


def _values(pairs: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise CommandError(f"--set needs NAME=VALUE; '{name[:64]}' has no value.")
        values[name] = value
    return values


def _open(entry: CatalogueEntry, values: dict[str, str]) -> list[Setting]:
    """Return the settings to ask for: secrets, and those without a value and a default."""
    missing = missing_settings(entry, values)
    secrets = [each for each in entry.settings if each.secret and each.required]
    return [*missing, *(each for each in secrets if each.name not in values)]


def _prompted(setting: Setting) -> str:
    """Ask for one value at the terminal; for a secret, only for its reference."""
    kind = "a reference to a secret" if setting.secret else "a value"
    default = f"${{env:{setting.name}}}" if setting.secret else None
    text = f"{setting.name} ({printable(setting.description)}; {kind})"
    return str(typer.prompt(text, default=default, err=True))


def _shown(entry: CatalogueEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_defaults=True)


def _next_steps(entry: CatalogueEntry, name: str, server: dict[str, Any]) -> list[str]:
    """Return what the operator does after the server is configured."""
    texts = (*server.get("env", {}).values(), *server.get("headers", {}).values())
    variables = sorted(each.path for each in references_in(texts) if each.store == "env")
    steps = [f"Set {each} in the environment of executor." for each in variables]
    if entry.authorization.registration == "manual":
        steps.append(
            f"Register a client at {entry.publisher}, and add it: servers.{name}.oauth.clients."
        )
    if entry.authorization.kind == "oauth":
        steps.append(f"Authorize it once: toolbus connections connect {name}")
    if entry.note:
        steps.append(entry.note)
    patterns = " ".join(f"--tools '{name}__{each}'" for each in entry.grants)
    if patterns:
        steps.append(f"Grant its reading tools: toolbus keys create NAME {patterns}")
    else:
        steps.append(f"Review its tools, then grant some to a key: toolbus pins list {name} --all")
    steps.append(f"Source: {entry.source.url} ({entry.source.date})")
    return steps
