"""Commands that apply, show and import the configuration."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from toolbus_cli.commands.new_servers import added
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.commands.repository import at_work
from toolbus_cli.config_file import ConfigurationError, load_file
from toolbus_cli.errors import CommandError
from toolbus_cli.importing import client_servers
from toolbus_cli.launcher.config_source import listening_on
from toolbus_cli.remote import configuration as remote_configuration
from toolbus_cli.remote import contexts
from toolbus_cli.state_dir import State
from toolbus_common.config import ConfigModel, Configuration
from toolbus_common.config_store.diff import Change
from toolbus_common.config_store.loading.loader import load
from toolbus_common.config_store.redacted_view import entries, exported, shown
from toolbus_common.config_store.repository import Applied, ConfigRepository

KINDS = tuple(Configuration.model_fields)
BY = "apply"
ALL = "all"


def apply(
    *,
    file: Annotated[Path, typer.Option("-f", "--file", help="A toolbus.yaml.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the differences.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Skip the confirmation at a terminal.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Apply a configuration as a whole, after showing the differences.

    If the configuration changes after the differences were shown, nothing is applied. An invalid
    file changes nothing; every error is printed with its line. A new key without a secret receives
    one, which is shown once.
    """

    def decided(planned: Sequence[str]) -> bool:
        if not as_json:
            say(*(planned or ["No differences."]))
        if planned and not dry_run and not yes:
            _ask(len(planned))
        return not dry_run

    if (context := contexts.chosen()) is not None:
        applied = remote_configuration.applied(context, file, decided)
    else:
        applied = _applied(file, state_dir, decided)
    if as_json:
        show_json(_reply(applied, dry_run=dry_run))
    elif not dry_run:
        _show_secrets(applied)
        say(f"Applied as revision {applied.revision}." if applied.changes else "Nothing to apply.")


def _applied(file: Path, state_dir: Path, decided: Callable[[Sequence[str]], bool]) -> Applied:
    running = State(state_dir).running().get("http_host", "")
    loaded = load_file(file, {**os.environ, **listening_on(running)})

    async def work(repository: ConfigRepository) -> Applied:
        planned, revision = await repository.plan(loaded.configuration)
        if not decided([*map(str, planned)]):
            return Applied(tuple(planned), 0)
        return await repository.apply(loaded.configuration, BY, revision)

    return at_work(state_dir, work)


def _ask(count: int) -> None:
    """Ask for confirmation at a terminal; scripts are not asked."""
    if sys.stdin.isatty() and not typer.confirm(f"Apply {count} changes?"):
        raise CommandError("Nothing was applied.")


def _reply(applied: Applied, *, dry_run: bool) -> dict[str, Any]:
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
    kind: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(KINDS)}; default: all, in the form that 'apply' accepts."
        ),
    ] = ALL,
    name: Annotated[str, typer.Argument(help="The entry's name; default: all.")] = "",
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show the configuration. Credentials are redacted.

    'toolbus apply' accepts the output: a key without a secret retains the stored secret, and
    '(set)' retains the stored value. Keys created with 'toolbus keys create' are shown only by
    'toolbus get keys'.
    """
    if kind not in (*KINDS, ALL):
        raise CommandError(f"Unknown kind '{kind}'; use one of {', '.join(KINDS)}.")
    if (context := contexts.chosen()) is not None:
        found = remote_configuration.found(context, kind)
    else:
        found = at_work(state_dir, lambda repository: _found(repository, kind))
    if name:
        if name not in found:
            raise CommandError(
                f"There is no '{name}' among the {kind}; 'toolbus get {kind}' shows all."
            )
        found = {name: found[name]}
    if as_json:
        show_json(found)
    else:
        document = found if kind == ALL else {kind: found}
        say(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip())


async def _found(repository: ConfigRepository, kind: str) -> dict[str, Any]:
    configuration = (await repository.declared()).configuration
    if kind == ALL:
        return exported(configuration)
    found = entries(configuration, kind)
    own: Mapping[str, ConfigModel] = {}
    if kind == "keys":
        own = await repository.own_keys()
    elif kind == "admins":
        own = await repository.own_admins()
    for each, entry in own.items():
        found[each] = shown(entry.model_dump(mode="json", exclude_defaults=True))
    return found


def take_over(
    file: Annotated[
        Path, typer.Argument(help="A configuration file of an MCP client: JSON, TOML or YAML.")
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The toolbus.yaml to write.")
    ] = None,
    apply_now: Annotated[
        bool, typer.Option("--apply", help="Add the servers to the current configuration.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Import the servers of an MCP client: Claude, Cursor, VS Code, Zed, Codex, Gemini, Goose.

    Without -o or --apply the toolbus.yaml is written to standard output. Each credential is
    replaced by ${env:NAME}, and the command lists the variables to set.
    """
    taken = client_servers.read(file)
    text = client_servers.as_yaml(taken)
    loaded = load(text, os.environ)
    if loaded.problems:
        raise ConfigurationError(file, loaded.problems)
    for message in taken.notes:
        typer.echo(message, err=True)
    if output is not None:
        _write(output, text, force=force)
    if apply_now:
        added(taken.servers, loaded.configuration, state_dir, BY)
    if as_json:
        show_json({"servers": taken.servers, "skipped": taken.skipped, "set": sorted(taken.moved)})
    elif output is None and not apply_now:
        say(text.rstrip())
    else:
        say(f"Imported {', '.join(taken.servers) or 'nothing'}.")


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL), 0o600
        )
    except FileExistsError as error:
        raise CommandError(f"{path} already exists; use --force to overwrite it.") from error
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written ({error.strerror}); choose another file with -o."
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
