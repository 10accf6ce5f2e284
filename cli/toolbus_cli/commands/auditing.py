"""Commands for analysts and auditors: questions in SQL, and facts as they come."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from toolbus_cli.commands.shared import (
    DEFAULT_STATE,
    AsJson,
    StateDir,
    say,
    show_json,
    show_table,
)
from toolbus_cli.local import find, joined
from toolbus_common.asklane import AskLane
from toolbus_common.contracts import AuditQueried, RowsFound
from toolbus_common.permissions import OPERATOR

SECONDS = 20.0  # longer than audit lets a question run
POLL_SECONDS = 0.5
BATCH = 500
_FACTS = (
    "SELECT stream_seq, line, at, fact, key, server, tool, code, reason, charge, latency_us "
    "FROM facts"
)


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over the table facts.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows at most.")] = 1000,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Ask the audit one question in SQL; it may read and nothing else.

    The table facts has a row per fact: at (UTC), fact (call.allowed, call.denied,
    call.completed, call.failed, server.lost, key.created, ...), scope, team, user, environment,
    key, call_id, server, tool, method, code, rule, shadow (rules that would have refused it),
    reason, charge (micro-dollars), latency_us, detail (the whole fact).
    """
    found = asyncio.run(_query(state_dir, sql, limit))
    if as_json:
        show_json(_records(found))
        return
    show_table(found.columns, found.rows, "No row.")
    if found.more:
        say(f"There are more; --limit raises the {limit} rows shown.")


async def _query(state_dir: Path, sql: str, limit: int) -> RowsFound:
    async with joined(find(state_dir)) as bus:
        asked = AuditQueried(sql=sql, limit=limit)
        return await AskLane(OPERATOR, bus).ask(asked, RowsFound, SECONDS)


def _records(found: RowsFound) -> list[dict[str, Any]]:
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def tail(
    *,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=BATCH)] = 20,
    follow: Annotated[bool, typer.Option(help="Go on as facts come.")] = True,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show the newest facts, and go on as they come; one JSON object a line with --json."""
    asyncio.run(_tail(state_dir, lines, follow=follow, as_json=as_json))


async def _tail(state_dir: Path, lines: int, *, follow: bool, as_json: bool) -> None:
    async with joined(find(state_dir)) as bus:
        lane = AskLane(OPERATOR, bus)
        newest = f"{_FACTS} ORDER BY at DESC, stream_seq DESC LIMIT {lines}"
        rows = _records(await _found(lane, newest)) if lines else []
        _show(sorted(rows, key=_place), as_json=as_json)
        last = max(map(_place, rows), default=None) or await _end(lane)
        while follow:
            await asyncio.sleep(POLL_SECONDS)
            after = f"(stream_seq, line) > ({last[0]}, {last[1]})"
            came = f"{_FACTS} WHERE {after} ORDER BY stream_seq, line"
            rows = _records(await _found(lane, f"{came} LIMIT {BATCH}"))
            _show(rows, as_json=as_json)
            last = max(map(_place, rows), default=last)


async def _found(lane: AskLane, sql: str) -> RowsFound:
    return await lane.ask(AuditQueried(sql=sql, limit=BATCH), RowsFound, SECONDS)


async def _end(lane: AskLane) -> tuple[int, int]:
    (row,) = (await _found(lane, "SELECT max(stream_seq) FROM facts")).rows
    return int(row[0] or 0), 1 << 15


def _place(row: dict[str, Any]) -> tuple[int, int]:
    return int(row["stream_seq"]), int(row["line"])


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        say(*(msgspec.json.encode(row).decode() for row in rows))
    else:
        say(*map(_line, rows))


def _line(row: dict[str, Any]) -> str:
    tool = f"{row['server']}__{row['tool']}" if row["tool"] else row["server"]
    parts = [str(row["at"])[:23], f"{row['fact']:16}", f"{row['key'] or '-':12}", tool]
    if row["code"]:
        parts.append(f"{row['code']}: {row['reason']}")
    elif row["reason"]:
        parts.append(row["reason"])
    if int(row["charge"]):
        parts.append(f"${int(row['charge']) / 1e6:g}")
    if int(row["latency_us"]):
        parts.append(f"{int(row['latency_us']) / 1000:.1f} ms")
    return "  ".join(parts).rstrip()
