"""Commands about keys: made, listed, revoked, given a new secret."""

from datetime import UTC, datetime
from time import time
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from toolbus_cli.commands.shared import (
    DEFAULT_STATE,
    AsJson,
    StateDir,
    at_work,
    say,
    show_json,
    show_table,
)
from toolbus_cli.desk import Desk, hashed, new_secret
from toolbus_cli.errors import CommandError
from toolbus_common.declared import Budget, Key, Name, Rate

NAMES: TypeAdapter[str] = TypeAdapter(Name)
ONCE = "shown once, only its hash is stored"


def create(  # noqa: PLR0913
    name: Annotated[str, typer.Argument(help="The key's name.")],
    *,
    tools: Annotated[
        list[str] | None, typer.Option("--tools", help="A pattern such as 'docs__*'; repeatable.")
    ] = None,
    team: Annotated[str, typer.Option(help="A declared team.")] = "",
    budget: Annotated[str, typer.Option(help="Dollars per period, such as 20/day.")] = "",
    rate: Annotated[str, typer.Option(help="Calls per period, such as 600/minute.")] = "",
    expires: Annotated[str, typer.Option(help="Its last day, such as 2027-01-31 (UTC).")] = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is shown once. Without --tools it may use nothing."""
    secret = new_secret(_checked_name(name))
    fields: dict[str, Any] = {"tools": tools or (), "team": team, "secret_hash": hashed(secret)}
    fields |= {"budget": _budget(budget), "rate": _rate(rate), "expires": expires or None}
    key = _made(fields)

    async def work(desk: Desk) -> None:
        own, declared = await desk.own_keys(), (await desk.declared()).declaration
        known = own.get(name) or declared.keys.get(name)
        if known is not None:
            raise CommandError(
                f"There is a key '{name}' already; 'toolbus keys rotate {name}' gives it a new "
                "secret."
            )
        if team and team not in declared.teams:
            raise CommandError(f"No team '{team}' is declared; 'toolbus get teams' shows them.")
        await desk.put_key(name, key)
        await desk.record_created(name, key)

    at_work(state_dir, work)
    _show_secret(name, secret, as_json=as_json)


def list_keys(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Every key, and whether it opens anything. Secrets are not known."""

    async def work(desk: Desk) -> list[dict[str, Any]]:
        own, declared = await desk.own_keys(), (await desk.declared()).declaration.keys
        keys = {**declared, **own}
        return [_row(name, keys[name], own=name in own) for name in sorted(keys)]

    rows = at_work(state_dir, work)
    if as_json:
        show_json(rows)
        return
    columns = ("name", "state", "team", "tools", "budget", "rate", "expires", "from")
    show_table(
        columns, [[row[column] for column in columns] for row in rows],
        "No key; 'toolbus keys create' makes one.",
    )  # fmt: skip


def revoke(
    name: Annotated[str, typer.Argument()],
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """End a key, at once and everywhere."""

    async def work(desk: Desk) -> None:
        key = await _known(desk, name)
        await desk.put_key(name, key.model_copy(update={"revoked": True}))
        if not key.revoked:
            await desk.record_revoked(name, key)

    at_work(state_dir, work)
    if as_json:
        show_json({"name": name, "state": "revoked"})
    else:
        say(f"The key '{name}' opens nothing any more.")


def rotate(
    name: Annotated[str, typer.Argument()],
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret; the old one ends at once. A revoked key lives again."""
    secret = new_secret(name)

    async def work(desk: Desk) -> None:
        key = await _known(desk, name)
        now = await desk.declared()
        if name in now.declaration.keys:
            if name not in now.minted:
                raise CommandError(
                    f"The secret of '{name}' stands in its configuration; change it there."
                )
            await desk.replace_secret(name, hashed(secret))
            await desk.drop_own_key(name)
        else:
            live = {"secret_hash": hashed(secret), "revoked": False}
            await desk.put_key(name, key.model_copy(update=live))
        await desk.record_created(name, key)

    at_work(state_dir, work)
    _show_secret(name, secret, as_json=as_json)


async def _known(desk: Desk, name: str) -> Key:
    own, declared = await desk.own_keys(), (await desk.declared()).declaration.keys
    key = own.get(name) or declared.get(name)
    if key is None:
        raise CommandError(f"There is no key '{name}'; 'toolbus keys list' shows them.")
    return key


def _show_secret(name: str, secret: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"name": name, "secret": secret})
    else:
        say(f"{secret}", f"The secret of '{name}': {ONCE}.")


def _row(name: str, key: Key, *, own: bool) -> dict[str, Any]:
    state = "revoked" if key.revoked else "expired" if key.expired(time()) else "live"
    if not key.secret_hash:
        state = "no secret"
    return {
        "name": name,
        "state": state,
        "team": key.team,
        "tools": list(key.tools or ()),
        "budget": f"{key.budget.usd:g}/{key.budget.per.value}" if key.budget else "",
        "rate": f"{key.rate.calls}/{key.rate.per.value}" if key.rate else "",
        "expires": key.expires.isoformat() if key.expires else "",
        "from": "command" if own else "declaration",
    }


def _checked_name(name: str) -> str:
    try:
        return NAMES.validate_python(name)
    except ValidationError as error:
        raise CommandError(
            f"'{name}' is no name: use at most 32 letters, digits, '-' and single '_'."
        ) from error


def _made(fields: dict[str, Any]) -> Key:
    try:
        key = Key.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise CommandError(f"--{place}: {first['msg']}.") from error
    if key.expires is not None and key.expires < datetime.now(UTC).date():
        raise CommandError("--expires is in the past; name the key's last day.")
    return key


def _budget(text: str) -> Budget | None:
    if not text:
        return None
    dollars, _, period = text.partition("/")
    try:
        return Budget.model_validate({"usd": dollars, "per": period})
    except ValidationError as error:
        raise CommandError(
            f"--budget '{text}' must be dollars per hour, day, week or month, such as 20/day."
        ) from error


def _rate(text: str) -> Rate | None:
    if not text:
        return None
    calls, _, period = text.partition("/")
    try:
        return Rate.model_validate({"calls": calls, "per": period})
    except ValidationError as error:
        raise CommandError(
            f"--rate '{text}' must be calls per second, minute, hour or day, such as 600/minute."
        ) from error
