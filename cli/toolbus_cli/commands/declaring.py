"""Commands about what is declared: applied as a whole, shown, taken over from elsewhere."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from toolbus_cli import servers_json
from toolbus_cli.commands.shared import (
    DEFAULT_STATE,
    AsJson,
    StateDir,
    at_work,
    say,
    show_json,
)
from toolbus_cli.config.load import ConfigurationError, load, load_file
from toolbus_cli.desk import Applied, Desk
from toolbus_cli.difference import Change
from toolbus_cli.errors import CommandError
from toolbus_common.declared import Declaration

KINDS = tuple(Declaration.model_fields)
BY = "apply"
HIDDEN = "(set)"


def apply(
    *,
    file: Annotated[Path, typer.Option("-f", "--file", help="A toolbus.yaml.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the difference.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Make a configuration take effect as a whole; the difference is shown first.

    A file with faults changes nothing: each fault is told with its line. A key declared
    without a secret is given one, shown once.
    """
    loaded = load_file(file, os.environ)

    async def work(desk: Desk) -> Applied:
        planned = await desk.plan(loaded.declaration)
        if not as_json:
            say(*(map(str, planned)), *([] if planned else ["Nothing differs."]))
        if dry_run:
            return Applied(tuple(planned), 0)
        return await desk.apply(loaded.declaration, BY)

    applied = at_work(state_dir, work)
    if as_json:
        show_json(_told(applied, dry_run=dry_run))
    elif not dry_run:
        _show_secrets(applied)
        say(f"Applied as revision {applied.revision}." if applied.changes else "Left as it was.")


def _told(applied: Applied, *, dry_run: bool) -> dict[str, Any]:
    return {
        "applied": not dry_run,
        "revision": applied.revision,
        "changes": [_change(change) for change in applied.changes],
        "secrets": applied.secrets,
    }


def _change(change: Change) -> dict[str, str]:
    return {"sign": change.sign, "section": change.section, "name": change.name}


def _show_secrets(applied: Applied) -> None:
    for name, secret in applied.secrets.items():
        say(f"{secret}   the secret of '{name}': shown once, only its hash is stored")


def get(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="One of them; else all.")] = "",
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show what is declared. Credentials are not shown."""
    if kind not in KINDS:
        raise CommandError(f"There is no kind '{kind}'; the kinds are {', '.join(KINDS)}.")

    async def work(desk: Desk) -> dict[str, Any]:
        declaration = (await desk.declared()).declaration
        if kind == "keys":
            keys = {**declaration.keys, **await desk.own_keys()}
            declaration = declaration.model_copy(update={"keys": keys})
        found = declaration.model_dump(mode="json", exclude_defaults=True)
        return dict(found.get(kind, {}))

    found = {each: _presentable(told) for each, told in at_work(state_dir, work).items()}
    if name:
        if name not in found:
            raise CommandError(f"'{name}' is not among the {kind}; 'toolbus get {kind}' shows all.")
        found = {name: found[name]}
    if as_json:
        show_json(found)
    else:
        say(yaml.safe_dump({kind: found}, sort_keys=False, allow_unicode=True).rstrip())


def _presentable(told: Any) -> Any:
    """The entry without its hash, and with credentials struck out; references stay."""
    if not isinstance(told, dict):
        return told
    shown = {field: value for field, value in told.items() if field != "secret_hash"}
    for field in ("headers", "env"):
        if field in shown:
            shown[field] = {each: _struck(value) for each, value in shown[field].items()}
    if "secret" in shown:
        shown["secret"] = _struck(shown["secret"])
    return shown


def _struck(value: Any) -> Any:
    return value if str(value).startswith("${env:") else HIDDEN


def take_over(
    file: Annotated[Path, typer.Argument(help="A JSON file with mcpServers.")],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write a toolbus.yaml here.")
    ] = None,
    apply_now: Annotated[
        bool, typer.Option("--apply", help="Add the servers to what is declared now.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Take over the servers of an existing client configuration (mcpServers).

    Without -o or --apply the toolbus.yaml is written to standard output. Where the file has a
    credential, the result has ${env:NAME}, and the command says which variables to set.
    """
    taken = servers_json.read(file)
    text = servers_json.as_yaml(taken)
    loaded = load(text, os.environ)
    if loaded.faults:
        raise ConfigurationError(file, loaded.faults)
    for sentence in taken.notes:
        typer.echo(sentence, err=True)
    if output is not None:
        _write(output, text, force=force)
    if apply_now:
        _add(loaded.declaration, state_dir)
    if as_json:
        show_json({"servers": taken.servers, "skipped": taken.skipped, "set": sorted(taken.moved)})
    elif output is None and not apply_now:
        say(text.rstrip())
    else:
        say(f"Took over {', '.join(taken.servers) or 'nothing'}.")


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL), 0o600
        )
    except FileExistsError as error:
        raise CommandError(f"{path} is there already; --force writes over it.") from error
    except OSError as error:
        raise CommandError(f"{path} cannot be written ({error.strerror}).") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _add(taken: Declaration, state_dir: Path) -> None:
    async def work(desk: Desk) -> None:
        now = (await desk.declared()).declaration
        taken_already = sorted(set(now.servers) & set(taken.servers))
        if taken_already:
            raise CommandError(
                f"A server '{taken_already[0]}' is declared already; rename one of them."
            )
        servers = {**now.servers, **taken.servers}
        await desk.apply(now.model_copy(update={"servers": servers}), BY)

    at_work(state_dir, work)
