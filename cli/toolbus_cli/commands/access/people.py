"""Commands about who signs in: accounts kept here, clients that ask, and what people allowed."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from toolbus_cli.commands.access.keys import checked_name
from toolbus_cli.commands.shared import DEFAULT_STATE, AsJson, StateDir, say, show_json, show_rows
from toolbus_cli.config_client import me
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_common.contracts import IdentityReply, IdentityRequest
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

SHORTEST_PASSWORD = 10
ITERATIONS, LANES, KIBIBYTES = 3, 1, 64 * 1024  # RFC 9106's second choice, on one lane
SECONDS = 10.0

Groups = Annotated[
    list[str] | None, typer.Option("--group", help="A group; rules of access ask for them.")
]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the standard input.")
]


def add_account(
    name: Annotated[str, typer.Argument(help="The name to sign in with.")],
    *,
    group: Groups = None,
    email: Annotated[str, typer.Option(help="An address, for rules.")] = "",
    totp: Annotated[bool, typer.Option("--totp", help="Ask for a code as well.")] = False,
    password_stdin: FromStdin = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Make an account for somebody. The secret of a second factor is shown once."""
    hashed = _hashed(_password(from_stdin=password_stdin))
    about = {"password": hashed, "groups": group or [], "email": email, "totp": totp}
    (row,) = wish(state_dir, "add_account", checked_name(name), about)
    if as_json:
        show_json(row)
        return
    say(f"'{name}' can sign in.")
    if totp:
        say(f"For an authenticator, shown once: {row['totp_secret']}")


def change_account(
    name: Annotated[str, typer.Argument()],
    *,
    group: Groups = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable")] = None,
    password: Annotated[bool, typer.Option("--password", help="Give a new password.")] = False,
    password_stdin: FromStdin = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Change an account; whatever its holder allowed ends, and they sign in anew."""
    about: dict[str, Any] = {"groups": group} if group is not None else {}
    if disable is not None:
        about["disabled"] = disable
    if password or password_stdin:
        about["password"] = _hashed(_password(from_stdin=password_stdin))
    wish(state_dir, "change_account", name, about)
    say(f"The account '{name}' is changed; what it allowed has ended.")


def remove_account(
    name: Annotated[str, typer.Argument()], *, state_dir: StateDir = DEFAULT_STATE
) -> None:
    """End an account, and all its holder allowed."""
    wish(state_dir, "remove_account", name)
    say(f"There is no account '{name}' any more.")


def list_accounts(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Every account kept here."""
    rows = wish(state_dir, "accounts")
    columns = ("name", "state", "second_factor", "groups")
    show_rows(columns, rows, "No account; 'toolbus accounts add' makes one.", as_json=as_json)


def add_client(  # noqa: PLR0913 - what may be said of one
    name: Annotated[str, typer.Argument(help="What people are shown.")],
    *,
    redirect: Annotated[
        list[str] | None,
        typer.Option(help="Where answers of people go; none: it acts in its own name."),
    ] = None,
    client_id: Annotated[str, typer.Option("--id", help="Its id; else one is made.")] = "",
    jwks: Annotated[
        Path | None, typer.Option(help=f"Its public keys ({BY_KEY}), instead of a secret.")
    ] = None,
    public: Annotated[
        bool,
        typer.Option("--public", help="It can keep no secret; without --redirect, shows a code."),
    ] = False,
    exchange: Annotated[
        list[str] | None,
        typer.Option(help="A resource where it may act on for whose token it was shown."),
    ] = None,
    dpop: Annotated[
        bool, typer.Option("--dpop", help="It gets only tokens bound to a key of its own.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Make a client you vouch for: a program people use, or a machine. Its secret is shown once."""
    method = "none" if public else BY_KEY if jwks else "client_secret_basic"
    about = {
        "client_id": client_id,
        "redirect_uris": redirect or [],
        "token_endpoint_auth_method": method,
        "jwks": _read_json(jwks) if jwks is not None else {},
        "exchange": exchange or [],
        "dpop_bound_access_tokens": dpop,
    }
    (row,) = wish(state_dir, "add_client", name, about)
    if as_json:
        show_json(row)
        return
    say(f"Client id: {row['id']}")
    if "secret" in row:
        say(f"Secret, shown once: {row['secret']}")


def remove_client(
    client_id: Annotated[str, typer.Argument(help="Its id.")],
    *,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """End a client, and all that people allowed it."""
    wish(state_dir, "remove_client", client_id)
    say("The client is gone.")


def list_clients(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Every client, also those that registered themselves."""
    rows = wish(state_dir, "clients")
    columns = ("id", "name", "from", "method", "redirects")
    show_rows(columns, rows, "No client has registered.", as_json=as_json)


def list_grants(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Every grant in force: which client may act for whom, until when."""
    rows = wish(state_dir, "grants")
    columns = ("id", "user", "client", "resource", "scope")
    show_rows(columns, rows, "Nobody has allowed anything.", as_json=as_json)


def revoke_grant(
    grant: Annotated[str, typer.Argument(help="Its id, from 'toolbus grants list'.")],
    *,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """End a grant, at once and everywhere, with all tokens made of it."""
    wish(state_dir, "end_grant", grant)
    say("The grant has ended.")


def wish(
    state_dir: Path, wish: str, name: str = "", about: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """What the oauth service answers to a wish."""

    async def ask() -> IdentityReply:
        asked = IdentityRequest(wish=wish, name=name, by=me(), about=json.dumps(about or {}))
        async with joined(find(state_dir)) as bus:
            return await RequestReply(OPERATOR, bus).ask(asked, IdentityReply, SECONDS)

    return list(asyncio.run(ask()).rows)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if len(password) < SHORTEST_PASSWORD:
        raise CommandError(f"Take a password of at least {SHORTEST_PASSWORD} characters.")
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
        raise CommandError(f"{path} holds no JSON that can be read.") from error
