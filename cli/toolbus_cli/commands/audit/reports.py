"""Commands for analysts: the questions that are saved, and a report as tables or one HTML file."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toolbus_cli.analytics import report_data
from toolbus_cli.analytics import report_page as page
from toolbus_cli.analytics import saved_queries as saved
from toolbus_cli.analytics.report_data import By, Report
from toolbus_cli.analytics.timestamps import moment
from toolbus_cli.commands.shared import (
    DEFAULT_STATE,
    AsJson,
    StateDir,
    say,
    show_json,
    show_rows,
    show_table,
)
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

SECONDS = 20.0  # longer than audit lets a question run
Own = Annotated[
    Path | None,
    typer.Option("--queries", envvar="TOOLBUS_QUERIES", help="A directory with queries of yours."),
]


def queries(
    name: Annotated[str, typer.Argument(help="Show this one with its SQL.")] = "",
    *,
    own: Own = None,
    as_json: AsJson = False,
) -> None:
    """List the saved queries with their descriptions.

    A file NAME.sql in a directory of yours joins them: a first line '-- sentence', a line
    '-- parameter: Type = usual | meaning' for each {parameter:Type} it uses, and a SELECT.
    """
    if name:
        one = saved.chosen(name, own)
        items = [
            f"-- {p.name}: {p.type} = {p.usual or '(needed)'} | {p.about}" for p in one.parameters
        ]
        say(f"-- {one.about}", *items, one.sql)
        return
    found = [
        {
            "name": each.name,
            "about": each.about,
            "parameters": [
                f"{p.name}={p.usual}" if p.usual is not None else f"{p.name}=…"
                for p in each.parameters
            ],
        }
        for each in saved.known(own).values()
    ]
    show_rows(("name", "about", "parameters"), found, "No query.", as_json=as_json)


def report(
    *,
    since: Annotated[
        str, typer.Option(help="From when: 24h, 7d, a day or a time (UTC); its whole hour.")
    ] = "24h",
    until: Annotated[str, typer.Option(help="To when.")] = "now",
    by: Annotated[
        str, typer.Option(help="One line for each customer, team, key, server or tool.")
    ] = "tool",
    html: Annotated[Path | None, typer.Option(help="Write a page with charts here.")] = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Report calls, failures, denials, cost and latency.

    The page of --html is one file without scripts or outside resources.
    """
    if by not in report_data.NAMED:
        raise CommandError(f"There is no report by '{by}'; write {', '.join(report_data.NAMED)}.")
    now = datetime.now(UTC)
    found = asyncio.run(_report(state_dir, by, moment(since, now), moment(until, now)))
    if html is not None:
        html.write_text(page.page(found), "utf-8")
        say(f"{html}: {found.total['all_calls']:,} calls from {found.since} to {found.until} UTC.")
    elif as_json:
        show_json(found.as_data)
    else:
        _show(found)


async def _report(state_dir: Path, by: By, since: datetime, until: datetime) -> Report:
    async with joined(find(state_dir)) as bus:
        bus_queries = RequestReply(OPERATOR, bus)

        async def request(question: AuditQuery) -> RowsReply:
            return await bus_queries.request(question, RowsReply, SECONDS)

        return await report_data.gathered(request, by, since, until)


def _show(found: Report) -> None:
    say(f"From {found.since} to {found.until} UTC.", "")
    columns = (found.by, "calls", "failed", "denied", "tool errors", "dollars", "p50 ms", "p95 ms")
    rows = [_row(row["name"], row) for row in found.table]
    show_table(columns, [*rows, _row("(all)", found.total)] if rows else [], "No call.")
    if found.more:
        say(f"There are more than {report_data.MOST_NAMES}; these are the most expensive.")
    if found.codes:
        say("")
        codes = [(row["code"], row["calls"]) for row in found.codes]
        show_table(("failed or denied because", "calls"), codes, "")
    if found.tokens["classic"]:
        text = "Code mode: {spent:,} tokens, where every definition would have been {classic:,}."
        say("", text.format(**found.tokens))


def _row(name: str, row: dict[str, Any]) -> tuple[Any, ...]:
    counted = (row[each] for each in ("all_calls", "all_failed", "all_denied", "all_errors"))
    return (name, *counted, f"{row['dollars']:.4f}", f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}")
