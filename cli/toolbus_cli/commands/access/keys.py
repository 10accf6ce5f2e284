"""Commands that create, list, revoke and rotate keys."""

from time import time
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_rows
from toolbus_cli.commands.repository import at_work
from toolbus_cli.errors import CommandError
from toolbus_cli.remote import contexts
from toolbus_cli.remote import keys as remote_keys
from toolbus_common.config import Budget, Key, KeyTerms, Name, Rate
from toolbus_common.config.access.expiry import expired, shown_expiry
from toolbus_common.config_store import keys as keyring
from toolbus_common.config_store.repository import ConfigRepository

M = TypeVar("M", bound=BaseModel)

NAMES: TypeAdapter[str] = TypeAdapter(Name)
EXPIRES = "The last valid day (2027-01-31, in UTC) or the time of expiry (2027-01-31T18:00Z)."
ONCE = "shown once, only its hash is stored"

KeyName = Annotated[str, typer.Argument(help="The key's name.")]


def create(  # noqa: PLR0913
    name: KeyName,
    *,
    tools: Annotated[
        list[str] | None,
        typer.Option("--tools", help="A pattern of allowed tools, such as 'docs__*'; repeatable."),
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A configured group of tool patterns; repeatable.")
    ] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(help="A pattern of denied tools, which overrides every grant; repeatable."),
    ] = None,
    team: Annotated[str, typer.Option(help="The configured team that the key belongs to.")] = "",
    user: Annotated[str, typer.Option(help="A configured user whose limits the key shares.")] = "",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Dollars or calls per period, such as 20/day (dollars) or 500calls/hour; "
            "repeatable."
        ),
    ] = None,
    rate: Annotated[
        list[str] | None, typer.Option(help="Calls per period, such as 600/minute; repeatable.")
    ] = None,
    expires: Annotated[str, typer.Option(help=EXPIRES)] = "",
    right: Annotated[
        list[str] | None,
        typer.Option(help="An additional right of the key: approve (decide on waiting calls)."),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Create a key. The secret is shown once. Without --tools or --group the key has no access."""
    terms = made_of(
        KeyTerms,
        tools=tools or (), groups=group or (), deny=deny or (), team=team, user=user,
        rights=right or (), expires=expires or None,
        budgets=[_budget(each) for each in budget or ()],
        rates=[_rate(each) for each in rate or ()],
    )  # fmt: skip
    _check_lasts(terms)
    checked = checked_name(name)
    if (context := contexts.chosen()) is not None:
        secret = remote_keys.create(context, checked, terms)
    else:
        secret = at_work(
            state_dir, lambda repository: keyring.create_key(repository, checked, terms)
        )
    show_secret(name, secret, as_json=as_json)


def list_keys(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List keys with their states. Secrets are never shown."""

    async def work(repository: ConfigRepository) -> list[dict[str, Any]]:
        own, declared = (
            await repository.own_keys(),
            (await repository.declared()).configuration.keys,
        )
        keys = {**declared, **own}
        return [_row(name, keys[name], own=name in own) for name in sorted(keys)]

    if (context := contexts.chosen()) is not None:
        rows = [
            _row(each["name"], Key.model_validate(each["value"]), own=each["origin"] == "command")
            | {"state": each["state"]}
            for each in remote_keys.listed(context)
        ]
    else:
        rows = at_work(state_dir, work)
    columns = ("name", "state", "team", "tools", "budget", "rate", "expires", "from")
    show_rows(columns, rows, "No keys; create one with 'toolbus keys create'.", as_json=as_json)


def revoke(
    name: KeyName,
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Revoke a key immediately, on every replica."""
    if (context := contexts.chosen()) is not None:
        remote_keys.revoke(context, name)
    else:
        at_work(state_dir, lambda repository: keyring.revoke_key(repository, name))
    if as_json:
        show_json({"name": name, "state": "revoked"})
    else:
        say(f"Revoked the key '{name}'.")


def rotate(
    name: KeyName,
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Replace a key's secret; the old secret stops working. This reactivates a revoked key."""
    if (context := contexts.chosen()) is not None:
        secret = remote_keys.rotate(context, name)
    else:
        secret = at_work(state_dir, lambda repository: keyring.rotate_key(repository, name))
    show_secret(name, secret, as_json=as_json)


def show_secret(name: str, secret: str, *, as_json: bool) -> None:
    """Print the new secret of a key."""
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
        "models": list(key.models or ()),
        "budget": ", ".join(map(_shown_budget, key.all_budgets)),
        "rate": ", ".join(map(_shown_rate, key.all_rates)),
        "expires": shown_expiry(key.expires),
        "from": "command" if own else "configuration",
    }


def _shown_rate(rate: Rate) -> str:
    return f"{rate.limit}{' tokens' if rate.tokens else ''}/{rate.per.value}"


def checked_name(name: str) -> str:
    """Validate a name and return it. Raises `CommandError` if it is invalid."""
    try:
        return NAMES.validate_python(name)
    except ValidationError as error:
        raise CommandError(
            f"'{name}' is not a valid name: use at most 32 letters, digits, '-' and single '_'."
        ) from error


def made_of(model: type[M], **options: Any) -> M:
    """Return a model built from options. Raises `CommandError` with the first invalid option."""
    try:
        return model.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise CommandError(f"--{place}: {first['msg']}.") from error


def _check_lasts(key: KeyTerms) -> None:
    if expired(key.expires, time()):
        raise CommandError("--expires is in the past; give a later day or time.")


def _budget(text: str) -> Budget:
    amount, _, period = text.partition("/")
    calls = amount.removesuffix("calls")
    limit = {"usd": amount} if calls == amount else {"calls": calls.strip()}
    try:
        return Budget.model_validate({**limit, "per": period})
    except ValidationError as error:
        raise CommandError(
            f"--budget '{text}' must be dollars or calls per hour, day, week or month, such as "
            "20/day or 500calls/hour."
        ) from error


def _shown_budget(budget: Budget) -> str:
    limit = f"{budget.calls}calls" if budget.usd is None else f"{budget.usd:g}"
    return f"{limit}/{budget.per.value}"


def _rate(text: str) -> Rate:
    calls, _, period = text.partition("/")
    try:
        return Rate.model_validate({"calls": calls, "per": period})
    except ValidationError as error:
        raise CommandError(
            f"--rate '{text}' must be calls per second, minute, hour or day, such as 600/minute."
        ) from error
