"""Commands that manage admin keys for the administration API."""

from time import time
from typing import Annotated, Any

import typer

from toolbus_cli.commands.access.keys import EXPIRES, checked_name, made_of, show_secret
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_rows
from toolbus_cli.commands.repository import at_work
from toolbus_common.admin_api.roles import ROLES
from toolbus_common.config import Admin
from toolbus_common.config.access.expiry import shown_expiry
from toolbus_common.config_store import keys as keyring
from toolbus_common.config_store.repository import ConfigRepository


def create(
    name: Annotated[str, typer.Argument(help="The admin key's name.")],
    *,
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")],
    expires: Annotated[str, typer.Option(help=EXPIRES)] = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Create an admin key for the API at /api. Its secret is shown once."""
    admin = made_of(Admin, role=role, expires=expires or None)
    secret = at_work(
        state_dir, lambda repository: keyring.create_admin(repository, checked_name(name), admin)
    )
    show_secret(name, secret, as_json=as_json)


def list_admins(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List admin keys with their roles and states."""

    async def work(repository: ConfigRepository) -> list[dict[str, Any]]:
        own, declared = (
            await repository.own_admins(),
            (await repository.declared()).configuration.admins,
        )
        admins = {**declared, **own}
        return [_row(name, admins[name], own=name in own) for name in sorted(admins)]

    rows = at_work(state_dir, work)
    columns = ("name", "state", "role", "expires", "from")
    show_rows(
        columns, rows, "No admin keys; create one with 'toolbus admins create'.", as_json=as_json
    )


def revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")],
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Revoke an admin key immediately, on every replica."""
    at_work(state_dir, lambda repository: keyring.revoke_admin(repository, name))
    if as_json:
        show_json({"name": name, "state": "revoked"})
    else:
        say(f"Revoked the admin key '{name}'.")


def _row(name: str, admin: Admin, *, own: bool) -> dict[str, Any]:
    state = "live" if admin.live(time()) else "revoked" if admin.revoked else "expired"
    return {
        "name": name,
        "state": state if admin.secret_hash else "no secret",
        "role": admin.role,
        "expires": shown_expiry(admin.expires),
        "from": "command" if own else "configuration",
    }
