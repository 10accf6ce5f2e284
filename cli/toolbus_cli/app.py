"""The command line: every command in its place, and every failure as one sentence."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
import typer.core

from toolbus_cli.commands import (
    admins,
    approving,
    auditing,
    calling,
    connect,
    declaring,
    evidence,
    importing,
    inspecting,
    keys,
    ledger,
    pins,
    rules,
    running,
    servers,
)
from toolbus_cli.errors import CommandError
from toolbus_common import logs
from toolbus_common.errors import ToolbusError

HELP = """The governed gateway between AI agents and the tools they use.

Begin with 'toolbus up': it starts everything on this machine, with a demo where there is no
toolbus.yaml, and prints an endpoint, a key and what to paste into a client.
"""
INTERRUPTED = 130

app = typer.Typer(
    help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _add(group: typer.Typer, command: Callable[..., Any], *examples: str, name: str = "") -> None:
    """Add a command, with examples below its help."""
    shown = "\n".join(f"  {example}" for example in examples)
    called = name or command.__name__.replace("_", "-")
    group.command(called, epilog=f"Examples:\n\n\b\n{shown}" if shown else None)(command)


def _add_running() -> None:
    _add(app, running.up, "toolbus up", "toolbus up -c toolbus.yaml --port 9000 --apart")
    _add(app, running.run, "toolbus run policy", "toolbus run ingress policy executor")
    _add(app, running.provision, "toolbus provision", "toolbus provision --replicas 3")
    _add(app, running.nats_config, "toolbus nats-config ./nats --listen 0.0.0.0 --store-dir /data")
    _add(app, inspecting.status, "toolbus status", "toolbus status --json | jq .rooms")
    _add(app, inspecting.doctor, "toolbus doctor", "toolbus doctor -c toolbus.yaml")


def _add_using() -> None:
    _add(app, declaring.apply, "toolbus apply -f toolbus.yaml", "toolbus apply -f t.yaml --dry-run")
    _add(app, declaring.get, "toolbus get > toolbus.yaml", "toolbus get keys bot --json")
    _add_importing()
    _add(app, calling.tools, "toolbus tools", "toolbus tools --as bot", "toolbus tools --all")
    _add(
        app, calling.call,
        "TOOLBUS_KEY=tbk_… toolbus call clock__now",
        "toolbus call notes__add '{\"text\": \"hello\"}' --key tbk_…",
    )  # fmt: skip


class _Importing(typer.core.TyperGroup):
    """`toolbus import FILE` stays the way to take over a client's servers."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command that is meant before words that name none."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["clients", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


def _add_importing() -> None:
    shown = (
        "Take over servers: of a client (mcpServers), or an HTTP API.\n\n"
        "'toolbus import FILE' is short for 'toolbus import clients FILE'."
    )
    examples = (
        "toolbus import claude_desktop_config.json -o toolbus.yaml",
        "toolbus import .mcp.json --apply",
    )
    about = typer.Typer(
        cls=_Importing, help=shown, no_args_is_help=True,
        epilog="Examples:\n\n\b\n" + "\n".join(f"  {each}" for each in examples),
    )  # fmt: skip
    _add(about, declaring.take_over, *examples, name="clients")
    _add(
        about, importing.openapi,
        "toolbus import openapi https://api.example/openapi.json -o toolbus.yaml",
        "toolbus import openapi crm.yaml --name crm --include tag:contacts",
    )  # fmt: skip
    _add(
        about, importing.curl,
        "toolbus import curl 'curl https://api.example/users/{id} -H \"X-Key: …\"' -o toolbus.yaml",
    )  # fmt: skip
    _add(about, importing.postman, "toolbus import postman shop.postman_collection.json")
    app.add_typer(about, name="import")


def _add_approving() -> None:
    _add(app, approving.approvals, "toolbus approvals", "toolbus approvals --json")
    _add(app, approving.approve, "toolbus approve 5f1c…", "toolbus approve 5f1c… --note 'Agreed.'")
    _add(app, approving.reject, "toolbus reject 5f1c… --reason 'Use the archive instead.'")


def _add_connect() -> None:
    _add(
        app, connect.connect,
        "TOOLBUS_KEY=tbk_… toolbus connect --url http://127.0.0.1:8080/mcp",
        "toolbus connect --key-file ~/.toolbus-key --server docs --state-dir ~/work/.toolbus",
        "",
        "in claude_desktop_config.json, and alike in other clients' files:",
        "",
        '{"mcpServers": {"toolbus": {',
        '  "command": "toolbus",',
        '  "args": ["connect", "--url", "http://127.0.0.1:8080/mcp"],',
        '  "env": {"TOOLBUS_KEY": "tbk_…"}}}}',
    )  # fmt: skip


def _add_groups() -> None:
    about_keys = typer.Typer(help="Keys of agents; a secret is shown once.", no_args_is_help=True)
    _add(
        about_keys, keys.create,
        "toolbus keys create bot --tools 'docs__*' --budget 20/day --rate 600/minute",
        "toolbus keys create ci --group readers --deny '*__delete_*' --budget 500calls/hour",
    )  # fmt: skip
    _add(about_keys, keys.list_keys, "toolbus keys list", name="list")
    _add(about_keys, keys.revoke, "toolbus keys revoke bot")
    _add(about_keys, keys.rotate, "toolbus keys rotate bot")
    about_audit = typer.Typer(help="What happened, as rows.", no_args_is_help=True)
    _add(
        about_audit, auditing.query,
        "toolbus audit query 'SELECT fact, count() FROM facts GROUP BY fact'",
    )  # fmt: skip
    _add(about_audit, auditing.tail, "toolbus audit tail", "toolbus audit tail -n 50 --no-follow")
    _add(
        about_audit, evidence.export,
        "toolbus audit export evidence.zip",
        "toolbus audit export november.zip --scope acme --since 2026-11-01",
    )  # fmt: skip
    _add(about_audit, evidence.key, "toolbus audit key")
    _add(
        about_audit, evidence.check,
        "toolbus audit verify evidence.zip --key toolbus+5f1c…", name="verify",
    )  # fmt: skip
    about_rules = typer.Typer(help="Rules on calls, in Cedar.", no_args_is_help=True)
    _add(about_rules, rules.list_rules, "toolbus rules list", name="list")
    _add(
        about_rules, rules.check, "toolbus rules check toolbus.yaml", "toolbus rules check r.cedar"
    )
    _add(
        about_rules, rules.replay,
        "toolbus rules replay toolbus.yaml --since 7d",
        "toolbus rules replay --rule no-deletes --json",
    )  # fmt: skip
    app.add_typer(about_keys, name="keys")
    app.add_typer(about_rules, name="rules")
    app.add_typer(about_audit, name="audit")


def _add_admins() -> None:
    about = typer.Typer(help="Admin keys, for the API at /api.", no_args_is_help=True)
    _add(
        about, admins.create,
        "toolbus admins create ci --role operator",
        "toolbus admins create auditor-ann --role auditor --expires 2027-01-31",
    )  # fmt: skip
    _add(about, admins.list_admins, "toolbus admins list", name="list")
    _add(about, admins.revoke, "toolbus admins revoke ci")
    app.add_typer(about, name="admins")


def _add_ledger() -> None:
    about = typer.Typer(help="Budgets: what is spent and held.", no_args_is_help=True)
    _add(about, ledger.show, "toolbus ledger show", "toolbus ledger show acme --json")
    _add(about, ledger.rebuild, "toolbus ledger rebuild acme")
    _add(about, ledger.accept, "toolbus ledger accept acme")
    app.add_typer(about, name="ledger")


def _add_pins() -> None:
    about = typer.Typer(
        help="Definitions of tools and prompts: what is held back, and what is approved.",
        no_args_is_help=True,
    )
    _add(about, pins.list_pins, "toolbus pins list", "toolbus pins list docs --all", name="list")
    _add(about, pins.diff, "toolbus pins diff docs__search", "toolbus pins diff docs --json")
    _add(
        about, pins.approve,
        "toolbus pins approve docs__search",
        "toolbus pins approve docs__search --digest 3f2a9c01d4e5b677",
        "toolbus pins approve docs --yes",
    )  # fmt: skip
    _add(about, pins.reject, "toolbus pins reject docs__search")
    app.add_typer(about, name="pins")


def _add_servers() -> None:
    about = typer.Typer(help="Single servers: no new calls, or met anew.", no_args_is_help=True)
    _add(about, servers.drain, "toolbus servers drain github")
    _add(about, servers.undrain, "toolbus servers undrain github")
    _add(about, servers.reset, "toolbus servers reset github")
    app.add_typer(about, name="servers")


_add_running()
_add_using()
_add_approving()
_add_connect()
_add_groups()
_add_admins()
_add_ledger()
_add_pins()
_add_servers()


def main(words: Sequence[str]) -> int:
    """Run one command; the exit code. Whatever fails is told in a sentence."""
    # What a connection logs while it waits is told as the command's own sentence.
    logs.configure("toolbus", "critical", "text")
    try:
        app(args=list(words), prog_name="toolbus")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # noqa: BLE001 - no stack trace for users
        return _failed(error)
    return 1


def _failed(error: Exception) -> int:
    if isinstance(error, CommandError):
        return _told(error.sentence, error.code)
    if isinstance(error, ToolbusError):
        return _told(error.reason, 1)
    if "TOOLBUS_DEBUG" in os.environ:
        raise error
    said = f"Something unexpected failed ({type(error).__name__}: {error})"
    return _told(f"{said}; set TOOLBUS_DEBUG=1 to see where.", 1)


def _told(sentence: str, code: int) -> int:
    sys.stderr.write(sentence.rstrip() + "\n")
    return code
