"""Commands that manage OAuth connections to upstream servers."""

from typing import Annotated

import typer

from toolbus_cli.commands.access.people import send_request
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_rows

Server = Annotated[str, typer.Argument(help="The server's name.")]


def list_connections(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List connections; tokens are never shown."""
    rows = send_request(state_dir, "connections")
    columns = ("server", "user", "issuer", "scopes", "renews")
    show_rows(columns, rows, "No connections.", as_json=as_json)


def connect(
    server: Server, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False
) -> None:
    """Print a link to connect a shared account to a server; valid for 10 minutes."""
    (row,) = send_request(state_dir, "connect", server)
    if as_json:
        show_json(row)
    else:
        say(f"Open this page and consent: {row['link']}")


def revoke_connection(
    server: Server,
    *,
    user: Annotated[str, typer.Option(help="The user; default: the shared connection.")] = "",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Revoke a connection and its tokens. Running calls may use them for 10 more seconds."""
    send_request(state_dir, "end_connection", server, {"user": user})
    say("Revoked the connection.")
