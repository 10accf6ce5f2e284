"""Commands that work on any machine: the version, contexts, the catalogue, tools and calls."""

import typer

from toolbus_cli.command_line import SUMMARIES, part
from toolbus_cli.command_line import add_command as _add
from toolbus_cli.command_line import commands_of as _commands


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


@part("explain")
def _add_explaining(app: typer.Typer) -> None:
    _add(
        app, _commands("access.explain").explain,
        "toolbus explain bot docs__search",
        "toolbus explain bot mail__send --arguments '{\"to\": \"ann@example.org\"}'",
        "toolbus explain bot fast-model --json",
    )  # fmt: skip


@part("context")
def _add_contexts(app: typer.Typer) -> None:
    context = _commands("operate.context")
    about = typer.Typer(help=SUMMARIES["context"], no_args_is_help=True)
    _add(
        about, context.add,
        "toolbus context add prod https://toolbus.example",
        "toolbus context add lab https://10.0.0.7 --key-file lab.key --ca lab-ca.pem",
    )  # fmt: skip
    _add(about, context.use, "toolbus context use prod", "toolbus context use local")
    _add(about, context.list_contexts, "toolbus context list", name="list")
    _add(about, context.remove, "toolbus context remove prod")
    app.add_typer(about, name="context")


@part("catalogue")
def _add_catalogue(app: typer.Typer) -> None:
    catalogue = _commands("servers.catalogue")
    about = typer.Typer(help=SUMMARIES["catalogue"], no_args_is_help=True)
    _add(
        about, catalogue.search,
        "toolbus catalogue search", "toolbus catalogue search issues",
        "toolbus catalogue search weather --registry https://registry.example",
    )  # fmt: skip
    _add(about, catalogue.show, "toolbus catalogue show github")
    _add(
        about, catalogue.add,
        "toolbus catalogue add github --set 'GITHUB_TOKEN=${vault:kv/github#token}'",
        "toolbus catalogue add filesystem --set directory=/srv/notes --installed -o toolbus.yaml",
        "toolbus catalogue add io.github.x/y --registry https://registry.example --version 1.2.0",
    )  # fmt: skip
    app.add_typer(about, name="catalogue")


@part("client")
def _add_client(app: typer.Typer) -> None:
    client = _commands("servers.client")
    about = typer.Typer(help=SUMMARIES["client"], no_args_is_help=True)
    _add(
        about, client.install,
        "TOOLBUS_KEY=tbk_… toolbus client install cursor",
        "toolbus client install claude --key-file ~/.toolbus-key --server docs",
        "toolbus client install vscode --project . --no-check",
        "toolbus client install codex --print",
    )  # fmt: skip
    app.add_typer(about, name="client")
