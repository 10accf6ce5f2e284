"""Commands for analysts: saved queries, and a report as tables or as one HTML file."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toolbus_cli.analytics import report_data
from toolbus_cli.analytics import report_page as page
from toolbus_cli.analytics.report_data import By, Report
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_rows, show_table
from toolbus_cli.commands.queries import opened_queries
from toolbus_cli.errors import CommandError
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.saved_queries import catalogue as saved
from toolbus_common.saved_queries.timestamps import moment

SECONDS = 20.0  # longer than audit's query timeout
Own = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        envvar="TOOLBUS_QUERIES",
        help="A directory with additional queries (NAME.sql).",
    ),
]


def queries(
    name: Annotated[str, typer.Argument(help="Show only this query, with its SQL.")] = "",
    *,
    own: Own = None,
    as_json: AsJson = False,
) -> None:
    """List the saved queries with their descriptions.

    Files NAME.sql in the directory of --queries are listed too. Such a file has a first line
    '-- description', a line '-- name: Type = default | description' for each {name:Type} that it
    uses, and one SELECT.
    """
    if name:
        one = saved.chosen(name, own)
        items = [
            f"-- {p.name}: {p.type} = {p.usual or '(required)'} | {p.about}" for p in one.parameters
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
        str,
        typer.Option(
            help="Start of the period: 24h, 7d, a day or a time (UTC), rounded down to the hour."
        ),
    ] = "24h",
    until: Annotated[str, typer.Option(help="End of the period: a day or a time (UTC).")] = "now",
    by: Annotated[str, typer.Option(help="Group by customer, team, key, server or tool.")] = "tool",
    html: Annotated[
        Path | None, typer.Option(help="Write an HTML page with charts to this file.")
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Report calls, failures, denials, cost and latency.

    The page that --html writes is one file without scripts or external resources.
    """
    if by not in report_data.NAMED:
        raise CommandError(
            f"A report cannot be grouped by '{by}'; use one of {', '.join(report_data.NAMED)}."
        )
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
    async with opened_queries(state_dir) as channel:

        async def request(question: AuditQuery) -> RowsReply:
            return await channel.request(question, RowsReply, SECONDS)

        return await report_data.gathered(request, by, since, until)


def _show(found: Report) -> None:
    say(f"From {found.since} to {found.until} UTC.", "")
    columns = (found.by, "calls", "failed", "denied", "tool errors", "dollars", "p50 ms", "p95 ms")
    rows = [_row(row["name"], row) for row in found.table]
    show_table(columns, [*rows, _row("(all)", found.total)] if rows else [], "No call.")
    if found.more:
        say(f"Only the {report_data.MAX_NAMES} most expensive rows are shown.")
    if found.codes:
        say("")
        codes = [(row["code"], row["calls"]) for row in found.codes]
        show_table(("code of failure or denial", "calls"), codes, "")
    if found.tokens["classic"]:
        text = (
            "Code mode used {spent:,} tokens; sending every definition would have used {classic:,}."
        )
        say("", text.format(**found.tokens))


def _row(name: str, row: dict[str, Any]) -> tuple[Any, ...]:
    counted = (row[each] for each in ("all_calls", "all_failed", "all_denied", "all_errors"))
    return (name, *counted, f"{row['dollars']:.4f}", f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}")
