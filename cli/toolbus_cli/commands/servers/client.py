"""Command that adds the gateway to the configuration of an MCP client."""

import re
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from toolbus_cli import mcp_client
from toolbus_cli.client_files.insertion import inserted
from toolbus_cli.client_files.paths import project_file, user_file
from toolbus_cli.client_files.write import replaced, text_of
from toolbus_cli.commands.options import DEFAULT_STATE, EndpointUrl, KeyFile, KeySecret, StateDir
from toolbus_cli.commands.output import say
from toolbus_cli.commands.servers.connect import secret_of
from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import endpoint_of
from toolbus_common.agent_clients.configurations import (
    CLIENTS,
    DEFAULT_NAME,
    KEY_VARIABLE,
    as_text,
    configuration,
)

SECONDS = 20.0
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ClientName = StrEnum("ClientName", list(CLIENTS))  # type: ignore[misc] # not a literal


def install(  # noqa: PLR0913 - one for each option
    client: Annotated[ClientName, typer.Argument(help="The MCP client.", show_choices=True)],
    *,
    url: EndpointUrl = "",
    key: KeySecret = "",
    key_file: KeyFile = None,
    by_variable: Annotated[
        bool,
        typer.Option(
            "--by-variable", help="Do not store the secret: the client reads TOOLBUS_KEY itself."
        ),
    ] = False,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project",
            help="Change the project's file in this directory; the secret is not stored.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="The name of the entry in the client.")
    ] = DEFAULT_NAME,
    server: Annotated[
        str, typer.Option(help="Expose only this server, with tool names without prefix.")
    ] = "",
    show_only: Annotated[
        bool, typer.Option("--print", help="Only print the entry, without the secret.")
    ] = False,
    check: Annotated[
        bool, typer.Option(help="Ask the endpoint for the key's tools before the change.")
    ] = True,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Add the gateway to the configuration of an MCP client; the earlier file is kept as a backup.

    An entry of the same name is replaced, everything else in the file stays. A file with the
    secret is readable by its owner only.
    """
    if not _NAME.fullmatch(name):
        raise CommandError("--name needs 1 to 64 letters, digits, '_' or '-'.")
    known = CLIENTS[client.value]
    base = url or endpoint_of(state_dir)
    endpoint = f"{base.rstrip('/')}/{server}" if server else base
    referred = known.asks or by_variable or project is not None
    if referred and not known.reference:
        raise CommandError(
            f"{known.title} cannot read {KEY_VARIABLE} itself; "
            "leave --by-variable and --project out."
        )
    path = project_file(known.name, project) if project else user_file(known.name, Path.home())
    if show_only:
        shown = known.reference or "<the key's secret>"
        say(str(path), as_text(known, configuration(known, endpoint, shown, name)))
        return
    secret = "" if referred and not check else secret_of(key, key_file)
    added = configuration(known, endpoint, known.reference if referred else secret, name)
    entry = added[known.section][name]
    if "command" in entry:  # desktop programs do not have the shell's PATH
        entry["command"] = _own_command()
    text = text_of(path)
    made = inserted(known, text, added, str(path))
    tools = _number_of_tools(endpoint, secret) if check else None
    if made == text:
        say(f"{path} already has this entry; nothing was changed.")
        return
    backup = replaced(path, made, private=not referred)
    say(f"Added '{name}' to {known.title}: {path}")
    if backup is not None:
        say(f"Backup: {backup}")
    if tools is not None:
        say(f"The key sees {tools} tool{'' if tools == 1 else 's'} at {endpoint}.")
    say(_next_step(known.title, asks=known.asks, referred=referred))


def _own_command() -> str:
    return shutil.which("toolbus") or str(Path(sys.argv[0]).resolve())


def _number_of_tools(endpoint: str, secret: str) -> int:
    result = mcp_client.request(endpoint, secret, "tools/list", {}, SECONDS)
    return len(result.get("tools", ()))


def _next_step(title: str, *, asks: bool, referred: bool) -> str:
    if asks:
        return f"Next: start the server in {title}; it asks for the key once and stores it."
    if referred:
        return f"Next: set {KEY_VARIABLE} in the environment of {title}, and restart it."
    return f"Next: restart {title}."
