"""Commands that show and confirm the labels of tools, show what runs have read, and reset a run."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from time import gmtime, strftime
from typing import Annotated, Any

import typer
from msgspec import to_builtins
from yaml import safe_dump

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.commands.repository import at_work
from toolbus_cli.config_client import me
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Configuration, ToolView
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import (
    FlowRunsQuery,
    FlowRunsReply,
    Listing,
    Query,
    ResetFlowRequest,
)
from toolbus_common.flow.labels import Labels, labels_of_tool
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CATALOGUE
from toolbus_common.web.json_view import visible

Found = dict[str, Labels]  # by the full name of a tool


def labels(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List what each tool reads and where it writes. A `?` marks a guessed label."""

    async def work(repository: ConfigRepository) -> tuple[Found, list[str]]:
        configuration = (await repository.declared()).configuration
        return await _labels(repository, configuration), _refusing(configuration)

    found, refusing = at_work(state_dir, work)
    if as_json:
        show_json([{"tool": visible(name), **to_builtins(each)} for name, each in found.items()])
        return
    rows = [(visible(name), *each.shown) for name, each in found.items()]
    show_table(("tool", "reads", "writes"), rows, "No tool.")
    guessed = sum(bool(each.guessed) for each in found.values())
    if refusing and guessed:
        say(
            f"Warning: the labels of {guessed} of these tools are guessed, and these levels can "
            f"refuse calls because of them: {', '.join(refusing)}. Confirm a guess with 'toolbus "
            "flow confirm SERVER TOOL', or declare 'reads' and 'writes'."
        )


def confirm(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="A configured server.")],
    tools: Annotated[
        list[str], typer.Argument(metavar="TOOL…", help="Tools, by the names that the server uses.")
    ],
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Confirm the guessed labels of tools, so that changed annotations do not change them.

    The command adds 'reads' and 'writes' of these tools to the configuration, and the event
    config.changed records it. Add the printed lines to your configuration file too, because the
    next 'toolbus apply' replaces all labels.
    """

    async def work(repository: ConfigRepository) -> Found:
        found = await _labels(repository, (await repository.declared()).configuration)
        named = {tool: full_name(server, tool) for tool in tools}
        missing = [visible(name) for name in named.values() if name not in found]
        if missing:
            raise CommandError(
                f"No tool {', '.join(missing)} is listed; 'toolbus flow labels' shows the tools."
            )
        chosen = {tool: found[name] for tool, name in named.items()}
        await repository.change(lambda old: _declared(old, server, chosen), "flow confirm")
        return chosen

    chosen = at_work(state_dir, work)
    views = {tool: {"reads": [*each.reads], "writes": each.writes} for tool, each in chosen.items()}
    document = {"servers": {server: {"tools": views}}}
    if as_json:
        show_json(document)
    else:
        say(
            "Confirmed. Add this to your configuration file, so that 'toolbus apply' keeps it:",
            *safe_dump(document, sort_keys=False).splitlines(),
        )


def runs(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List the runs that have read private or untrusted content, the newest first."""
    result = _request(state_dir, FlowRunsQuery())
    if as_json:
        show_json(result.model_dump())
        return
    rows = [
        (
            each.run,
            each.scope,
            each.key,
            visible(each.private) or "-",
            visible(each.untrusted) or "-",
            strftime("%Y-%m-%d %H:%M UTC", gmtime(each.ends)),
        )
        for each in result.runs
    ]
    columns = ("run", "scope", "key", "read private", "read untrusted", "until")
    show_table(columns, rows, "No run has read private or untrusted content.")


def reset(
    run: Annotated[str, typer.Argument(help="The run's id, from 'toolbus flow runs'.")],
    *,
    reason: Annotated[str, typer.Option(help="The reason, which is recorded.")],
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Clear the record of what a run has read; later calls count as if it had read nothing."""
    _request(state_dir, ResetFlowRequest(run=run, by=me(), note=reason))
    say(f"Reset {run}: the record of what it has read is cleared.")


async def _labels(repository: ConfigRepository, configuration: Configuration) -> Found:
    """Return the labels of all listed tools."""
    bucket, found = await repository.bus.bucket(CATALOGUE), {}
    for name, server in sorted(configuration.servers.items()):
        entry = await bucket.get(name)
        if entry is None or entry.value is None:
            continue
        for tool in Listing.decode(entry.value).tools:
            found[full_name(name, tool.name)] = labels_of_tool(server, tool.name, tool.as_sent)
    return found


def _declared(old: Configuration, server: str, chosen: Mapping[str, Labels]) -> Configuration:
    """Return the configuration with the labels of these tools of a server."""
    declared = old.servers[server]
    views = dict(declared.tools)
    for tool, labels in chosen.items():
        labelled = {"reads": labels.reads, "writes": labels.writes}
        views[tool] = views.get(tool, ToolView()).model_copy(update=labelled)
    servers = {**old.servers, server: declared.model_copy(update={"tools": views})}
    return old.model_copy(update={"servers": servers})


def _refusing(configuration: Configuration) -> list[str]:
    """Return the levels whose information flow refuses calls."""
    found = ["all keys"] if _refuses(configuration) else []
    for kind in ("customers", "teams", "users", "groups", "keys"):
        levels = getattr(configuration, kind, {})
        found += [f"{kind}.{name}" for name, level in levels.items() if _refuses(level)]
    return found


def _refuses(level: Any) -> bool:
    flow = getattr(level, "flow", None)
    return flow is not None and flow.action == "refuse"


def _request(state_dir: Path, question: Query) -> FlowRunsReply:
    async def send() -> FlowRunsReply:
        async with joined(find(state_dir)) as bus:
            return await RequestReply(OPERATOR, bus).request(question, FlowRunsReply)

    return asyncio.run(send())
