"""Commands about connections: whose tokens Toolbus calls servers with that want OAuth."""

from typing import Annotated

import typer

from toolbus_cli.commands.access.people import wish
from toolbus_cli.commands.shared import DEFAULT_STATE, AsJson, StateDir, say, show_json, show_rows

Server = Annotated[str, typer.Argument(help="The server, as it is declared.")]


def list_connections(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Every connection; its tokens are never shown."""
    rows = wish(state_dir, "connections")
    columns = ("server", "user", "issuer", "scopes", "renews")
    show_rows(columns, rows, "Nobody has connected to a server.", as_json=as_json)


def connect(
    server: Server, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False
) -> None:
    """Get a page at which you consent for everybody who may call a server; 10 minutes."""
    (row,) = wish(state_dir, "connect", server)
    if as_json:
        show_json(row)
    else:
        say(f"Open this page and agree: {row['link']}")


def revoke_connection(
    server: Server,
    *,
    user: Annotated[str, typer.Option(help="Whose; none: the one for everybody.")] = "",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """End a connection, and give its tokens back. Calls under way may still use them for 10 s."""
    wish(state_dir, "end_connection", server, {"user": user})
    say("The connection has ended.")
