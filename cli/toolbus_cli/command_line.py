"""Top level of the command line, whose commands are imported when they are used."""

import gc
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

Part = Callable[[typer.Typer], None]
_parts: dict[str, Part] = {}  # the function that adds a command or group, by name
SUMMARIES = {  # the first sentence of each command's help; a test compares both
    "up": "Start the whole gateway on this machine; Ctrl-C drains and stops it.",
    "run": "Run services in one process, for a cluster; SIGTERM drains and stops them.",
    "provision": "Create NATS streams, consumers and buckets; safe to repeat.",
    "nats-config": "Write a NATS configuration with a user, permissions and a seed file per "
    "service.",
    "status": "Show the state of every service and server.",
    "doctor": "Check for common problems and suggest fixes.",
    "rotate": "List the keys of an installation, or replace a key that its services share.",
    "version": "Show the version, the commit, the MCP revisions and the embedded engines.",
    "context": "Manage contexts: gateways that 'toolbus --context NAME' administers over HTTPS.",
    "apply": "Apply a configuration as a whole, after showing the differences.",
    "get": "Show the configuration.",
    "tools": "List the tools of every server, or only the tools that a key can see.",
    "call": "Call a tool over HTTP; the call is authorized, charged and recorded.",
    "explain": "Explain how a call with a key would be decided, and why; nothing is called.",
    "approvals": "List calls that wait for an approval, oldest first.",
    "approve": "Approve a waiting call once.",
    "reject": "Reject a waiting call, with a reason the caller can act on.",
    "runs": "See and cancel runs of agent mode.",
    "flow": "Show and confirm the labels of tools; show and reset what runs have read.",
    "connect": "Run an MCP server on stdio that forwards to the endpoint.",
    "client": "Add the gateway to the configuration of an MCP client.",
    "catalogue": "Search a catalogue of servers, and add one to the configuration.",
    "import": "Import servers from an MCP client or an HTTP API.",
    "keys": "Manage the keys of agents.",
    "rules": "List, check and replay Cedar rules on calls.",
    "guards": "List and test guards, and show what they checked.",
    "plugins": "List plugins, and write a new one.",
    "audit": "Query, export, verify and erase recorded events; manage legal holds.",
    "console": "Print a link that signs in to the console; it works once, for 15 minutes.",
    "admins": "Manage admin keys for the API at /api.",
    "accounts": "Manage local accounts of people who sign in.",
    "clients": "Manage OAuth clients.",
    "grants": "List and revoke the grants of OAuth clients.",
    "connections": "Manage OAuth connections to upstream servers.",
    "cache": "Show and purge cached responses of models.",
    "ledger": "Show budgets and rebuild their counters.",
    "pins": "Review, approve and reject quarantined definitions of tools and prompts.",
    "servers": "Drain, resume or reset a server.",
    "backup": "Create, verify and restore backups of an installation.",
}


class CommandLine(TyperGroup):
    """Top level of `toolbus`; it imports a command only when the command is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=text) for name, text in SUMMARIES.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that the first argument names, and return it."""
        if not ctx.resilient_parsing and "--help" not in args:
            import_module("toolbus_cli.remote.contexts").check_command(args)
        self.load(args[0])
        found = super().resolve_command(ctx, args)
        if not gc.isenabled():  # disabled at the start, for faster imports
            gc.freeze()  # imported modules are never collected
            gc.enable()
        return found

    def load(self, name: str) -> None:
        """Import a command and the other commands of its part; they replace their summaries."""
        if add := _parts.get(name):
            app = new_app()
            add(app)
            self.commands.update(typer.main.get_group(app).commands)

    def load_all(self) -> None:
        """Import every command."""
        for name in _parts:
            self.load(name)


def new_app(**options: Any) -> typer.Typer:
    """Return an application without commands, whose help is plain text."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, **options)
    app.callback()(_nothing)  # makes the application a group, even with a single command
    return app


def _nothing() -> None:
    pass


def part(*names: str) -> Callable[[Part], Part]:
    """Return a decorator that registers the names of the commands that a function adds."""

    def declared(add: Part) -> Part:
        _parts.update(dict.fromkeys(names, add))
        return add

    return declared


def commands_of(name: str) -> ModuleType:
    """Import and return a module of `toolbus_cli.commands`."""
    return import_module(f"toolbus_cli.commands.{name}")


def add_command(
    group: typer.Typer, command: Callable[..., Any], *examples: str, name: str = ""
) -> None:
    """Add a command with examples below its help."""
    shown = "\n".join(f"  {example}" for example in examples)
    called = name or command.__name__.replace("_", "-")
    group.command(called, epilog=f"Examples:\n\n\b\n{shown}" if shown else None)(command)


class Importing(TyperGroup):
    """Group of import commands; `toolbus import FILE` means `toolbus import clients FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `clients` if the first argument is not the name of a command."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["clients", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed
