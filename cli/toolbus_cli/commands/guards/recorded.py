"""Commands about what guards checked, or would have checked, of recorded calls."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toolbus_cli.clients.guard_replay import CONTENTS, GuardReplay, observing, start
from toolbus_cli.clients.guard_samples import Laboratory
from toolbus_cli.commands.guards.sources import (
    SECONDS,
    ConfigFile,
    Since,
    asking,
    declared_in,
    rows_of,
)
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.commands.repository import with_repository
from toolbus_cli.errors import CommandError
from toolbus_common.contracts import GuardChecksQuery, RowsReply
from toolbus_common.errors import InvalidError
from toolbus_common.guards.coverage import Coverage, Share, selected
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.saved_queries.timestamps import moment

BATCH = 1000
MIN_ROWS = 8  # rows whose contents fit into one reply, even if they are long
Key = Annotated[str, typer.Option("--key", help="Only calls of this key.")]
Tool = Annotated[
    str, typer.Option("--tool", help="Only these tools (docs__*) or models (claude/*).")
]


def coverage(
    *,
    since: Since = "24h",
    key: Key = "",
    tool: Tool = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show the share of calls and bytes that each guard checked, and every gap.

    A call is a gap if it was not checked by a guard that applied when the call was decided, or if a
    check failed. The exit code is 1 if there is a gap.
    """
    found, complete = asyncio.run(_covered(_at(since), key, tool, state_dir))
    gaps, unguarded = found.gaps(), [*found.unguarded()]
    if as_json:
        show_json(
            {
                "shares": [each.as_data for each in found.shares()],
                "gaps": [each.as_data for each in gaps],
                "without_guards": [
                    dict(zip(("customer", "key", "tool", "calls"), each, strict=True))
                    for each in unguarded
                ],
                "unknown_keys": sorted(found.unknown_keys),
                "complete": complete,
            }
        )
    else:
        _show_coverage(found, gaps, unguarded, complete=complete)
    raise typer.Exit(1 if gaps else 0)


def replay(
    name: Annotated[str, typer.Argument(help="The name of a guard.")],
    *,
    config: ConfigFile = None,
    since: Since = "7d",
    key: Key = "",
    tool: Tool = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Run a guard over recorded content, and report what it would have done.

    Content is recorded only where content or result_content is full or redacted in the
    configuration; all other calls are counted as not recorded. The output has call ids and names
    of rules, never content.
    """
    report = asyncio.run(_replayed(name, config, _at(since), (key, tool), state_dir))
    if as_json:
        show_json(report.as_data)
        return
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in report.verdicts.most_common())
    say(f"{report.kept} contents checked: {verdicts or 'none'}.")
    if report.missing:
        say(f"{report.missing} contents were not recorded as a whole (set content: full).")
    rows = [(rule, count) for rule, count in report.rules.most_common()]
    show_table(("rule", "contents"), rows, "")
    for each in report.examples:
        found = ", ".join(each["findings"]) or each["error"]
        say(f"{each['verdict']}: {each['call_id']} {each['key']} {each['tool']} {found}")


async def _covered(since: datetime, key: str, tool: str, state_dir: Path) -> tuple[Coverage, bool]:
    async with with_repository(state_dir) as repository:
        stored = await repository.declared()
        found = Coverage(stored.configuration, await repository.own_keys())
        queries = RequestReply(OPERATOR, repository.bus)
        query = GuardChecksQuery(since=since.timestamp(), revision=stored.revision)
        reply = await queries.request(query, RowsReply, SECONDS)
    found.add_rows(reply, lambda row: selected(row, key, tool))
    return found, not reply.more


async def _replayed(
    name: str, config: Path | None, since: datetime, only: tuple[str, str], state_dir: Path
) -> GuardReplay:
    async with with_repository(state_dir) as repository:
        stored = (await repository.declared()).configuration
        guards = (declared_in(config) if config else stored).guards
        queries = RequestReply(OPERATOR, repository.bus)
        guard = Laboratory(guards).known(name)
        tested = Laboratory({name: observing(guard)}, asking(queries, stored.guards, guards))
        report, place, limit = GuardReplay(name, tested), start(since), BATCH
        while True:
            try:
                rows, more = await rows_of(queries, CONTENTS, limit, **place)
            except InvalidError:
                if limit <= MIN_ROWS:
                    raise
                limit //= 4  # contents can be long
                continue
            for row in rows:
                if selected(row, *only):
                    await report.add(row)
            if not more:
                return report
            last: dict[str, Any] = rows[-1]
            place |= {"seq": str(last["stream_seq"]), "line": str(last["line"])}


def _show_coverage(
    found: Coverage,
    gaps: list[Share],
    unguarded: list[tuple[str, str, str, int]],
    *,
    complete: bool,
) -> None:
    rows = [
        (each.customer, each.key, each.tool, each.phase, each.guard, each.calls,
         f"{each.percent:g} %", each.missing or "", each.failed or "", each.exempt or "",
         f"{each.checked_bytes}/{each.bytes}")
        for each in found.shares()
    ]  # fmt: skip
    columns = (
        "customer", "key", "tool", "phase", "guard", "calls", "checked", "missing", "failed",
        "exempt", "bytes",
    )  # fmt: skip
    show_table(columns, rows, "No guard applied to a recorded call.")
    for each in gaps:
        what = f"{each.missing} missing, {each.failed} failed: {' '.join(each.call_ids)}"
        say(f"GAP {each.guard} {each.phase} {each.key} {each.tool}: {what}")
    for customer, key, tool, calls in unguarded:
        say(f"No guard: {customer} {key} {tool}, {calls} calls")
    if found.unknown_keys:
        names = ", ".join(sorted(found.unknown_keys))
        say(f"The configuration does not contain these keys any more: {names}")
    if not complete:
        say("Not all calls are shown; choose a shorter time with --since.")


def _at(since: str) -> datetime:
    try:
        return moment(since, datetime.now(UTC))
    except InvalidError as error:
        raise CommandError(error.reason) from error
