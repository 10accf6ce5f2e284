"""Commands about plugins: those that are declared, and a new project for one."""

import asyncio
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.commands.repository import with_repository
from toolbus_cli.errors import CommandError
from toolbus_common.config.plugins import Plugin
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.accounts import plugin_account
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.plugins.requests import faults_in

_PLACEHOLDER = "plugin-name"
_DECLARATIONS = {
    "python": "{{python: {module}, cwd: {path}, hooks: [before_decision, after_result], "
    "sees: [arguments, result], may: [change], settings: {{members: [authorization]}}}}",
    "go": "{{url: http://127.0.0.1:9300/, hooks: [after_decision], sees: [arguments], "
    "may: [refuse]}}",
    "node": "{{url: http://127.0.0.1:9301/, hooks: [after_decision]}}",
}
_TESTS = {"python": "python -m pytest", "go": "go test ./...", "node": "npm test"}


class Language(StrEnum):
    """The language of a new plugin."""

    PYTHON = "python"
    GO = "go"
    NODE = "node"


def list_plugins(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List plugins: where they are asked, what they see and may do, and whether they answer."""
    rows = asyncio.run(_listed(state_dir))
    if as_json:
        show_json(rows)
        return
    columns = ("plugin", "kind", "hooks", "sees", "may", "timeout", "fail", "order", "state")
    cells = [[row[each] for each in columns] for row in rows]
    show_table(columns, cells, "No plugin is declared; see plugins.md.")


def new(
    name: Annotated[str, typer.Argument(help="The name of the plugin, in lower case.")],
    *,
    lang: Annotated[Language, typer.Option("--lang", help="The language.")] = Language.PYTHON,
    directory: Annotated[
        Path | None, typer.Option("--directory", help="The new directory; default: the name.")
    ] = None,
) -> None:
    """Write a working plugin with tests.

    The Python plugin masks members of arguments and results, the Go plugin limits the daily sum of
    an argument, and the Node plugin writes calls to a file.
    """
    module = name.replace("-", "_")
    if not (module.isidentifier() and module == module.lower() and len(name) <= 32):  # noqa: PLR2004
        raise CommandError(
            f"'{name[:64]}' cannot be the name of a plugin; use up to 32 lower-case letters, "
            "digits and hyphens, beginning with a letter."
        )
    target = directory or Path(name)
    try:
        target.mkdir(parents=True)
        for source in _project(lang):
            text = source.read_text(encoding="utf-8")
            named = _named(source.name.removesuffix(".txt"), name, module)
            (target / named).write_text(_named(text, name, module), encoding="utf-8")
    except FileExistsError as error:
        raise CommandError(
            f"'{target}' exists already; name another directory with --directory."
        ) from error
    except OSError as error:
        raise CommandError(
            f"'{target}' cannot be written ({error.strerror}); name another directory with "
            "--directory."
        ) from error
    declared = _DECLARATIONS[lang].format(module=module, path=target.absolute())
    say(
        f"Wrote {target}. Run its tests there with: {_TESTS[lang]}",
        "Declare it in toolbus.yaml:",
        "",
        f"plugins:\n  {name}: {declared}",
    )


def _project(lang: Language) -> list[Traversable]:
    folder = files("toolbus_cli") / "plugin_projects" / lang.value
    return sorted(folder.iterdir(), key=lambda each: each.name)


def _named(text: str, name: str, module: str) -> str:
    return text.replace(_PLACEHOLDER, name).replace(_PLACEHOLDER.replace("-", "_"), module)


async def _listed(state_dir: Path) -> list[dict[str, Any]]:
    async with with_repository(state_dir) as repository:
        declared = (await repository.declared()).configuration.plugins
        statuses = await RequestReply(OPERATOR, repository.bus).request_all()
    faults: dict[str, str] = {}
    for status in statuses:
        faults |= faults_in(status.details)
    return [_row(name, plugin, faults.get(name, "")) for name, plugin in declared.items()]


def _row(name: str, plugin: Plugin, fault: str) -> dict[str, Any]:
    return {
        "plugin": name,
        "kind": plugin.kind,
        "hooks": ", ".join(plugin.hooks),
        "sees": ", ".join(plugin.sees) or "names",
        "may": ", ".join(plugin.may) or "look",
        "timeout": f"{plugin.timeout:g} s",
        "fail": "closed" if plugin.fails_closed else "open",
        "order": plugin.order,
        "user": plugin_account(name) if plugin.on_bus else "",
        "state": fault or "ready",
    }
