"""Command that prints a sign-in link of the console."""

from typing import Annotated

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.commands.repository import at_work
from toolbus_cli.launcher.console_link import create_link
from toolbus_cli.state_dir import endpoint_of


def console(
    *,
    url: Annotated[
        str, typer.Option(help="The gateway's URL; default: the local installation.")
    ] = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Print a link that signs in to the console; it works once, for 15 minutes.

    The session has the role admin for 12 hours. Its changes are recorded with your user name.
    """
    gateway = (url or endpoint_of(state_dir)).rstrip("/").removesuffix("/mcp")
    link = at_work(state_dir, lambda repository: create_link(repository, gateway))
    if as_json:
        show_json({"console": link})
    else:
        say(link)
