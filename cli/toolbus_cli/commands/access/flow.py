"""Commands that show the labels of tools and what runs have read, and reset a run."""

import asyncio
from pathlib import Path
from time import gmtime, strftime
from typing import Annotated, Any

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.commands.repository import at_work
from toolbus_cli.config_client import me
from toolbus_cli.installation import find, joined
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import (
    FlowRunsQuery,
    FlowRunsReply,
    Listing,
    Query,
    ResetFlowRequest,
)
from toolbus_common.flow.labels import labels_of_tool
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CATALOGUE
from toolbus_common.web.json_view import visible


def labels(*, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List what each tool reads and where it writes; a `?` marks a guess, to declare or correct."""

    async def work(repository: ConfigRepository) -> list[dict[str, Any]]:
        servers = (await repository.declared()).configuration.servers
        bucket, found = await repository.bus.bucket(CATALOGUE), []
        for server in sorted(servers):
            entry = await bucket.get(server)
            if entry is None or entry.value is None:
                continue
            for tool in Listing.decode(entry.value).tools:
                own = labels_of_tool(servers[server], tool.name, tool.as_sent)
                name = visible(full_name(server, tool.name))
                guessed = [*own.guessed]
                found.append(
                    {"tool": name, "reads": [*own.reads], "writes": own.writes, "guessed": guessed}
                )
        return found

    found = at_work(state_dir, work)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            each["tool"],
            (", ".join(each["reads"]) or "nothing") + ("?" if "reads" in each["guessed"] else ""),
            each["writes"] + ("?" if "writes" in each["guessed"] else ""),
        )
        for each in found
    ]
    show_table(("tool", "reads", "writes"), rows, "No tool.")


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
    """Forget what a run has read; its next calls are judged as if it had read nothing."""
    _request(state_dir, ResetFlowRequest(run=run, by=me(), note=reason))
    say(f"Reset {run}: what it has read is forgotten.")


def _request(state_dir: Path, question: Query) -> FlowRunsReply:
    async def send() -> FlowRunsReply:
        async with joined(find(state_dir)) as bus:
            return await RequestReply(OPERATOR, bus).request(question, FlowRunsReply)

    return asyncio.run(send())
