"""Commands that work on any machine: the version, tools and calls."""

import typer

from toolbus_cli.command_line import add_command as _add
from toolbus_cli.command_line import commands_of as _commands
from toolbus_cli.command_line import part


@part("tools")
def _add_tools(app: typer.Typer) -> None:
    _add(app, _commands("servers.tools").tools, "toolbus tools", "toolbus tools --as bot")


@part("call")
def _add_call(app: typer.Typer) -> None:
    _add(
        app, _commands("servers.call").call,
        "TOOLBUS_KEY=tbk_… toolbus call clock__now",
        "toolbus call notes__add '{\"text\": \"hello\"}' --key tbk_…",
    )  # fmt: skip


@part("version")
def _add_version(app: typer.Typer) -> None:
    about = _commands("operate.version")
    _add(app, about.show_version, "toolbus version", "toolbus version --json", name="version")
