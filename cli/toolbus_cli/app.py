"""The command line: its commands, groups and examples.

A command is imported when it is used, because importing all commands takes longer than most
commands run.
"""

import typer
import typer.main

from toolbus_cli import basic_commands  # noqa: F401 - it adds its commands
from toolbus_cli.command_line import SUMMARIES, CommandLine, Importing, new_app, part
from toolbus_cli.command_line import add_command as _add
from toolbus_cli.command_line import commands_of as _commands

HELP = """The governed gateway between AI agents and the tools they use.

Begin with 'toolbus up': it starts every service on this machine, with a demo if there is no
toolbus.yaml, and prints an endpoint, a key and a client configuration.
"""


def built() -> typer.Typer:
    """Return the command line; it imports a command when the command is used."""
    return new_app(cls=CommandLine, help=HELP, no_args_is_help=True)


def with_every_command() -> CommandLine:
    """Return the command line with every command imported."""
    group = typer.main.get_group(built())
    assert isinstance(group, CommandLine)  # noqa: S101 - for the type checker
    group.load_all()
    return group


def _group(app: typer.Typer, name: str) -> typer.Typer:
    """Add an empty group of commands, and return it."""
    about = typer.Typer(help=SUMMARIES[name], no_args_is_help=True)
    app.add_typer(about, name=name)
    return about


@part("up", "run", "provision", "nats-config")
def _add_running(app: typer.Typer) -> None:
    running = _commands("operate.run")
    _add(app, running.up, "toolbus up", "toolbus up -c toolbus.yaml --port 9000 --separate")
    _add(app, running.run, "toolbus run policy", "toolbus run ingress policy executor")
    _add(app, running.provision, "toolbus provision", "toolbus provision --replicas 3")
    _add(app, running.nats_config, "toolbus nats-config ./nats --listen 0.0.0.0 --store-dir /data")


@part("status", "doctor")
def _add_inspecting(app: typer.Typer) -> None:
    inspecting = _commands("operate.status")
    _add(app, inspecting.status, "toolbus status", "toolbus status --json | jq .services")
    _add(app, inspecting.doctor, "toolbus doctor", "toolbus doctor -c toolbus.yaml")


@part("rotate")
def _add_rotation(app: typer.Typer) -> None:
    _add(
        app, _commands("operate.rotate").rotate,
        "toolbus rotate --list", "toolbus rotate policy --stage prepare",
        "toolbus rotate policy --stage switch", "toolbus rotate policy --stage finish",
    )  # fmt: skip


@part("apply", "get")
def _add_declaring(app: typer.Typer) -> None:
    declaring = _commands("operate.apply")
    _add(app, declaring.apply, "toolbus apply -f toolbus.yaml", "toolbus apply -f t.yaml --dry-run")
    _add(app, declaring.get, "toolbus get > toolbus.yaml", "toolbus get keys bot --json")


@part("approvals", "approve", "reject")
def _add_approving(app: typer.Typer) -> None:
    approving = _commands("access.approvals")
    _add(app, approving.approvals, "toolbus approvals", "toolbus approvals --json")
    _add(app, approving.approve, "toolbus approve 5f1c…", "toolbus approve 5f1c… --note 'Agreed.'")
    _add(app, approving.reject, "toolbus reject 5f1c… --reason 'Use the archive instead.'")


@part("runs")
def _add_runs(app: typer.Typer) -> None:
    runs = _commands("access.runs")
    about = _group(app, "runs")
    _add(about, runs.list_runs, "toolbus runs list", "toolbus runs list --json", name="list")
    _add(about, runs.show, "toolbus runs show 4f0c…")
    _add(about, runs.cancel, "toolbus runs cancel 4f0c…")


@part("flow")
def _add_flow(app: typer.Typer) -> None:
    flow, about = _commands("access.flow"), _group(app, "flow")
    _add(about, flow.labels, "toolbus flow labels")
    _add(about, flow.confirm, "toolbus flow confirm notes read search")
    _add(about, flow.runs, "toolbus flow runs", "toolbus flow runs --json")
    _add(about, flow.reset, 'toolbus flow reset 9f2c… --reason "checked the calls"')


@part("connect")
def _add_connect(app: typer.Typer) -> None:
    _add(
        app, _commands("servers.connect").connect,
        "TOOLBUS_KEY=tbk_… toolbus connect --url http://127.0.0.1:8080/mcp",
        "toolbus connect --key-file ~/.toolbus-key --server docs --state-dir ~/work/.toolbus",
        "",
        "In claude_desktop_config.json; the files of other clients are similar:",
        "",
        '{"mcpServers": {"toolbus": {',
        '  "command": "toolbus",',
        '  "args": ["connect", "--url", "http://127.0.0.1:8080/mcp"],',
        '  "env": {"TOOLBUS_KEY": "tbk_…"}}}}',
    )  # fmt: skip


@part("import")
def _add_importing(app: typer.Typer) -> None:
    declaring, importing = (_commands("operate.apply"), _commands("servers.import_"))
    shown = (
        "Import servers from an MCP client or an HTTP API.\n\n"
        "'toolbus import FILE' is short for 'toolbus import clients FILE'."
    )
    examples = (
        "toolbus import claude_desktop_config.json -o toolbus.yaml",
        "toolbus import .mcp.json --apply",
        "toolbus import ~/.codex/config.toml",
        "toolbus import ~/.config/goose/config.yaml",
    )
    about = typer.Typer(
        cls=Importing, help=shown, no_args_is_help=True,
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


@part("keys")
def _add_keys(app: typer.Typer) -> None:
    keys = _commands("access.keys")
    about = typer.Typer(
        help="Manage the keys of agents. A secret is shown once.", no_args_is_help=True
    )
    _add(
        about, keys.create,
        "toolbus keys create bot --tools 'docs__*' --budget 20/day --rate 600/minute",
        "toolbus keys create ci --group readers --deny '*__delete_*' --budget 500calls/hour",
        "toolbus keys create guest --tools 'docs__*' --expires 2027-01-31T18:00Z",
    )  # fmt: skip
    _add(about, keys.list_keys, "toolbus keys list", name="list")
    _add(about, keys.revoke, "toolbus keys revoke bot")
    _add(about, keys.rotate, "toolbus keys rotate bot")
    app.add_typer(about, name="keys")


@part("rules")
def _add_rules(app: typer.Typer) -> None:
    rules = _commands("access.rules")
    about = _group(app, "rules")
    _add(about, rules.list_rules, "toolbus rules list", name="list")
    _add(about, rules.check, "toolbus rules check toolbus.yaml", "toolbus rules check r.cedar")
    _add(
        about, rules.replay,
        "toolbus rules replay toolbus.yaml --since 7d",
        "toolbus rules replay --rule no-deletes --json",
    )  # fmt: skip


@part("guards", "plugins")
def _add_guards(app: typer.Typer) -> None:
    inspect, recorded = (_commands("guards.inspect"), _commands("guards.recorded"))
    plugins, extend = _commands("guards.plugins"), _group(app, "plugins")
    about = _group(app, "guards")
    _add(extend, plugins.list_plugins, "toolbus plugins list", name="list")
    _add(extend, plugins.new, "toolbus plugins new hide-fields --lang python")
    _add(about, inspect.list_guards, "toolbus guards list", name="list")
    _add(about, inspect.show, "toolbus guards show secrets")
    _add(
        about, inspect.check,
        "toolbus guards check secrets 'token: ghp_…'",
        "toolbus guards check pii --file answer.json --phase results -c toolbus.yaml",
    )  # fmt: skip
    _add(
        about, inspect.compare,
        "toolbus guards test samples.yaml", "toolbus guards test s.jsonl --guard pii -c t.yaml",
        name="test",
    )  # fmt: skip
    _add(
        about, recorded.replay,
        "toolbus guards replay secrets --since 7d",
        "toolbus guards replay pii -c proposed.yaml --tool 'crm__*' --json",
    )  # fmt: skip
    examples = ("toolbus guards coverage", "toolbus guards coverage --since 7d --key bot --json")
    _add(about, recorded.coverage, *examples)


@part("audit")
def _add_audit(app: typer.Typer) -> None:
    about = _group(app, "audit")
    _add_asking(about)
    _add_evidence(about)
    _add_erasing(about)
    _add_refilling(about)


def _add_asking(about_audit: typer.Typer) -> None:
    auditing, analysing = (_commands("audit.query"), _commands("audit.reports"))
    _add(
        about_audit, auditing.query,
        "toolbus audit query 'SELECT event, count() FROM events GROUP BY event'",
        "toolbus audit query --saved who-called --param at=2026-11-17T02:47",
    )  # fmt: skip
    _add(about_audit, analysing.queries, "toolbus audit queries", "toolbus audit queries denials")
    _add(
        about_audit, analysing.report,
        "toolbus audit report --since 7d --by team",
        "toolbus audit report --since 2026-11-01 --until 2026-12-01 --html november.html",
    )  # fmt: skip
    _add(
        about_audit, auditing.tail,
        "toolbus audit tail", "toolbus audit tail -f --event 'call.*' --key bot",
    )  # fmt: skip


def _add_evidence(about_audit: typer.Typer) -> None:
    evidence = _commands("audit.evidence")
    _add(
        about_audit, evidence.export,
        "toolbus audit export evidence.zip",
        "toolbus audit export november.zip --customer acme --since 2026-11-01",
        "toolbus audit export calls.parquet --format parquet --since 7d --event 'call.*'",
    )  # fmt: skip
    _add(about_audit, evidence.key, "toolbus audit key")
    _add(
        about_audit, evidence.check,
        "toolbus audit verify evidence.zip --key toolbus+5f1c…", name="verify",
    )  # fmt: skip


def _add_erasing(about_audit: typer.Typer) -> None:
    erasing = _commands("audit.privacy")
    _add(
        about_audit, erasing.forget,
        "toolbus audit forget ann --reason 'her request of 2026-11-20'",
        "toolbus audit forget operator:bo --yes",
    )  # fmt: skip
    about = typer.Typer(
        help="Manage legal holds, which prevent the deletion of a customer's events.",
        no_args_is_help=True,
    )
    _add(about, erasing.hold, "toolbus audit hold add acme --why 'case 17/2026'", name="add")
    _add(about, erasing.lift, "toolbus audit hold remove acme", name="remove")
    _add(about, erasing.list_holds, "toolbus audit hold list", name="list")
    about_audit.add_typer(about, name="hold")


def _add_refilling(about_audit: typer.Typer) -> None:
    refilling = _commands("audit.backfill")
    _add(
        about_audit, refilling.backfill,
        "toolbus audit backfill", "toolbus audit backfill --since 2026-11-01",
        "toolbus audit backfill november.jsonl.gz",
    )  # fmt: skip
    letters = typer.Typer(
        help="List, show and retry events that audit could not parse.", no_args_is_help=True
    )
    _add(letters, refilling.list_letters, "toolbus audit dead-letters list", name="list")
    _add(letters, refilling.show, "toolbus audit dead-letters show 1042.0")
    _add(letters, refilling.retry, "toolbus audit dead-letters retry")
    about_audit.add_typer(letters, name="dead-letters")


@part("admins", "console")
def _add_admins(app: typer.Typer) -> None:
    console = _commands("access.console").console
    _add(app, console, "toolbus console", "toolbus console --url https://toolbus.example")
    admins, login = (_commands("access.admins"), _commands("access.login"))
    about = _group(app, "admins")
    _add(
        about, admins.create,
        "toolbus admins create ci --role operator",
        "toolbus admins create auditor-ann --role auditor --expires 2027-01-31",
    )  # fmt: skip
    _add(about, admins.list_admins, "toolbus admins list", name="list")
    _add(about, admins.revoke, "toolbus admins revoke ci")
    _add(
        about, login.login,
        "ADMIN=$(toolbus admins login --url https://toolbus.example)",
        "toolbus admins login --read-only",
    )  # fmt: skip


@part("accounts", "clients", "grants", "connections")
def _add_people(app: typer.Typer) -> None:
    people, connections = (_commands("access.people"), _commands("servers.connections"))
    accounts = _group(app, "accounts")
    _add(
        accounts, people.add_account,
        "toolbus accounts add ann --group engineering",
        "toolbus accounts add bob --totp --password-stdin < password", name="add",
    )  # fmt: skip
    _add(accounts, people.list_accounts, "toolbus accounts list", name="list")
    _add(
        accounts, people.change_account,
        "toolbus accounts change ann --disable", "toolbus accounts change ann --password",
        name="change",
    )  # fmt: skip
    _add(accounts, people.remove_account, "toolbus accounts remove ann", name="remove")
    clients = _group(app, "clients")
    _add(
        clients, people.add_client,
        "toolbus clients add nightly",
        "toolbus clients add Desk --redirect https://desk.example/callback",
        "toolbus clients add 'The toolbus command' --id toolbus --public", name="add",
    )  # fmt: skip
    _add(clients, people.list_clients, "toolbus clients list", name="list")
    _add(clients, people.remove_client, "toolbus clients remove 5f1c…", name="remove")
    grants = _group(app, "grants")
    _add(grants, people.list_grants, "toolbus grants list --json", name="list")
    _add(grants, people.revoke_grant, "toolbus grants revoke 5f1c…", name="revoke")
    about = _group(app, "connections")
    _add(about, connections.list_connections, "toolbus connections list", name="list")
    _add(about, connections.connect, "toolbus connections connect docs", name="connect")
    _add(
        about, connections.revoke_connection,
        "toolbus connections revoke docs --user ann", name="revoke",
    )  # fmt: skip


@part("ledger")
def _add_ledger(app: typer.Typer) -> None:
    ledger = _commands("access.ledger")
    about = _group(app, "ledger")
    _add(about, ledger.show, "toolbus ledger show", "toolbus ledger show acme --json")
    _add(about, ledger.rebuild, "toolbus ledger rebuild acme")
    _add(about, ledger.accept, "toolbus ledger accept acme")


@part("cache")
def _add_cache(app: typer.Typer) -> None:
    cache = _commands("operate.cache")
    about = _group(app, "cache")
    _add(about, cache.show, "toolbus cache show", "toolbus cache show --customer acme --json")
    _add(
        about, cache.purge,
        "toolbus cache purge --model claude/claude-haiku",
        "toolbus cache purge --entry 5f1c…",
        "toolbus cache purge --all",
    )  # fmt: skip


@part("pins")
def _add_pins(app: typer.Typer) -> None:
    pins = _commands("servers.pins")
    about = _group(app, "pins")
    _add(about, pins.list_pins, "toolbus pins list", "toolbus pins list docs --all", name="list")
    _add(about, pins.diff, "toolbus pins diff docs__search", "toolbus pins diff docs --json")
    _add(
        about, pins.approve,
        "toolbus pins approve docs__search",
        "toolbus pins approve docs__search --digest 3f2a9c01d4e5b677",
        "toolbus pins approve docs --yes",
    )  # fmt: skip
    _add(about, pins.reject, "toolbus pins reject docs__search")


@part("servers")
def _add_servers(app: typer.Typer) -> None:
    servers = _commands("servers.servers")
    about = _group(app, "servers")
    _add(about, servers.drain, "toolbus servers drain github")
    _add(about, servers.undrain, "toolbus servers undrain github")
    _add(about, servers.reset, "toolbus servers reset github")


@part("backup")
def _add_backup(app: typer.Typer) -> None:
    backup = _commands("operate.backup")
    about = _group(app, "backup")
    _add(
        about, backup.create,
        "toolbus backup create /mnt/backups/2026-11-24",
        "toolbus backup create /mnt/backups/2026-11-24 --recipient backup.pub",
    )  # fmt: skip
    _add(about, backup.verify, "toolbus backup verify /mnt/backups/2026-11-24")
    _add(
        about, backup.restore,
        "toolbus backup restore /mnt/backups/2026-11-24",
        "toolbus backup restore /mnt/backups/2026-11-24 --state-dir new --private-key backup.key",
    )  # fmt: skip
