"""Commands that manage local accounts, OAuth clients and grants."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from toolbus_cli.commands.access.keys import checked_name
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_rows
from toolbus_cli.config_client import me
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_common.contracts import IdentityReply, IdentityRequest
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

SHORTEST_PASSWORD = 10
ITERATIONS, LANES, KIBIBYTES = 3, 1, 64 * 1024  # RFC 9106, section 4, second option; one thread
SECONDS = 10.0

Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="A group of the person, for access rules; repeatable."),
]
AccountName = Annotated[str, typer.Argument(help="The account's name.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


def add_account(
    name: Annotated[str, typer.Argument(help="The name to sign in with.")],
    *,
    group: Groups = None,
    email: Annotated[str, typer.Option(help="An email address, for access rules.")] = "",
    totp: Annotated[
        bool, typer.Option("--totp", help="Require a one-time code (TOTP) too.")
    ] = False,
    password_stdin: FromStdin = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Create an account for a person. With --totp, the TOTP secret is shown once."""
    hashed = _hashed(_password(from_stdin=password_stdin))
    about = {"password": hashed, "groups": group or [], "email": email, "totp": totp}
    (row,) = send_request(state_dir, "add_account", checked_name(name), about)
    if as_json:
        show_json(row)
        return
    say(f"Created the account '{name}'.")
    if totp:
        say(f"TOTP secret for an authenticator app, shown once: {row['totp_secret']}")


def change_account(
    name: AccountName,
    *,
    group: Groups = None,
    disable: Annotated[
        bool | None,
        typer.Option("--disable/--enable", help="Prevent or permit sign-ins of this account."),
    ] = None,
    password: Annotated[bool, typer.Option("--password", help="Set a new password.")] = False,
    password_stdin: FromStdin = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Change an account; its grants end and the person must sign in again."""
    about: dict[str, Any] = {"groups": group} if group is not None else {}
    if disable is not None:
        about["disabled"] = disable
    if password or password_stdin:
        about["password"] = _hashed(_password(from_stdin=password_stdin))
    send_request(state_dir, "change_account", name, about)
    say(f"Changed the account '{name}'; its grants have ended.")


def remove_account(name: AccountName, *, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Delete an account and end its grants."""
    send_request(state_dir, "remove_account", name)
    say(f"Deleted the account '{name}'.")


def list_accounts(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List local accounts."""
    rows = send_request(state_dir, "accounts")
    columns = ("name", "state", "second_factor", "groups")
    show_rows(
        columns, rows, "No accounts; create one with 'toolbus accounts add'.", as_json=as_json
    )


def add_client(  # noqa: PLR0913 - the fields of a client
    name: Annotated[str, typer.Argument(help="The name shown to people.")],
    *,
    redirect: Annotated[
        list[str] | None,
        typer.Option(
            help="A redirect URI; repeatable. A client without one uses device codes (with "
            "--public), client credentials or a JWT bearer grant."
        ),
    ] = None,
    client_id: Annotated[
        str, typer.Option("--id", help="The client id; default: a generated one.")
    ] = "",
    jwks: Annotated[
        Path | None,
        typer.Option(
            help=f"A JWKS file with the client's public keys ({BY_KEY}), instead of a secret."
        ),
    ] = None,
    public: Annotated[
        bool,
        typer.Option(
            "--public", help="The client has no secret; without --redirect it uses device codes."
        ),
    ] = False,
    exchange: Annotated[
        list[str] | None,
        typer.Option(
            help="A resource for which the client may exchange a user's token; repeatable."
        ),
    ] = None,
    dpop: Annotated[
        bool, typer.Option("--dpop", help="Issue only DPoP-bound tokens to this client.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Create a trusted client: an application or a machine. Its secret is shown once."""
    method = "none" if public else BY_KEY if jwks else "client_secret_basic"
    about = {
        "client_id": client_id,
        "redirect_uris": redirect or [],
        "token_endpoint_auth_method": method,
        "jwks": _read_json(jwks) if jwks is not None else {},
        "exchange": exchange or [],
        "dpop_bound_access_tokens": dpop,
    }
    (row,) = send_request(state_dir, "add_client", name, about)
    if as_json:
        show_json(row)
        return
    say(f"Client id: {row['id']}")
    if "secret" in row:
        say(f"Secret, shown once: {row['secret']}")


def remove_client(
    client_id: Annotated[str, typer.Argument(help="The client id.")],
    *,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Delete a client and end its grants."""
    send_request(state_dir, "remove_client", client_id)
    say("Deleted the client.")


def list_clients(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List all clients, including dynamically registered clients."""
    rows = send_request(state_dir, "clients")
    columns = ("id", "name", "from", "method", "redirects")
    show_rows(columns, rows, "No clients.", as_json=as_json)


def list_grants(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List active grants with user, client, resource and scope."""
    rows = send_request(state_dir, "grants")
    columns = ("id", "user", "client", "resource", "scope")
    show_rows(columns, rows, "No grants.", as_json=as_json)


def revoke_grant(
    grant: Annotated[str, typer.Argument(help="The grant's id, from 'toolbus grants list'.")],
    *,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Revoke a grant and all its tokens immediately, on every replica."""
    send_request(state_dir, "end_grant", grant)
    say("Revoked the grant.")


def send_request(
    state_dir: Path, action: str, name: str = "", about: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Send an identity request to the oauth service and return the rows of its reply."""

    async def send() -> IdentityReply:
        request = IdentityRequest(action=action, name=name, by=me(), about=json.dumps(about or {}))
        async with joined(find(state_dir)) as bus:
            return await RequestReply(OPERATOR, bus).request(request, IdentityReply, SECONDS)

    return list(asyncio.run(send()).rows)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if len(password) < SHORTEST_PASSWORD:
        raise CommandError(
            f"The password is too short; use at least {SHORTEST_PASSWORD} characters."
        )
    return password


def _hashed(password: str) -> str:
    derived = Argon2id(
        salt=os.urandom(16), length=32, iterations=ITERATIONS, lanes=LANES, memory_cost=KIBIBYTES
    )
    return derived.derive_phc_encoded(password.encode())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read as JSON; give a JWKS file.") from error
