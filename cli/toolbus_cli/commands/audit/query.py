"""Commands for analysts and auditors: SQL queries, and a live view of events."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from toolbus_cli.commands.audit.reports import SECONDS, Own
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.commands.queries import opened_queries
from toolbus_cli.errors import CommandError
from toolbus_common.contracts import AuditQuery, ModelUsed, RowsReply
from toolbus_common.contracts.model_calls import SEPARATOR, is_model_method
from toolbus_common.contracts.queries.sql_text import like
from toolbus_common.evidence.collection import Queries
from toolbus_common.saved_queries import catalogue as saved

POLL_SECONDS = 0.5
BATCH = 500
_EVENTS = (
    "SELECT stream_seq, line, at, event, key, server, tool, method, code, reason, charge,"
    " latency_us, input_tokens, output_tokens "
    "FROM events WHERE event LIKE {event:String} AND ({customer:String} IN ('', customer))"
    " AND ({key:String} IN ('', key)) AND ({server:String} IN ('', server))"
)


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over the table events.")] = "",
    *,
    name: Annotated[
        str,
        typer.Option(
            "--saved",
            help="The name of a saved query (see 'toolbus audit queries') instead of SQL.",
        ),
    ] = "",
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            help="NAME=VALUE: the value of a parameter {NAME:Type} of the saved query; repeatable.",
        ),
    ] = None,
    own: Own = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")] = 1000,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Run a read-only SQL query on the audit store.

    The table events has a row per event: at (UTC), event (call.allowed, call.denied,
    call.completed, call.failed, server.lost, key.created, ...), customer, team, user, environment,
    key, call_id, server, tool, method, code, rule, shadow (shadow rules that would have denied the
    call), reason, charge (micro-dollars), latency_us, detail (the whole event).
    """
    request = AuditQuery(sql=sql, limit=limit, parameters=_named(given or ()))
    if name:
        one = saved.chosen(name, own)
        parameters = one.bound(request.parameters, datetime.now(UTC))
        request = AuditQuery(sql=one.sql, limit=limit, parameters=parameters)
    if bool(name) == bool(sql):
        raise CommandError(
            "Give either an SQL statement or the name of a saved query with --saved."
        )
    found = asyncio.run(_query(state_dir, request))
    if as_json:
        show_json(_records(found))
        return
    show_table(found.columns, found.rows, "No row.")
    if found.more:
        say(f"More than {limit} rows match; raise --limit to see them.")


async def _query(state_dir: Path, requested: AuditQuery) -> RowsReply:
    async with opened_queries(state_dir) as queries:
        return await queries.request(requested, RowsReply, SECONDS)


def _named(given: Sequence[str]) -> dict[str, str]:
    """Return the values of `--param` options by name. Raises `CommandError` if one has no '='."""
    for each in given:
        if "=" not in each:
            raise CommandError(
                f"'{each[:40]}' is not a parameter with a value; write --param name=value."
            )
    return {name: value for name, _, value in (each.partition("=") for each in given)}


def _records(found: RowsReply) -> list[dict[str, Any]]:
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def tail(  # noqa: PLR0913 - one for each option
    *,
    lines: Annotated[
        int,
        typer.Option(
            "-n", "--lines", min=0, max=BATCH, help="The number of newest events to print first."
        ),
    ] = 20,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Keep running and print new events.")
    ] = False,
    event: Annotated[
        str, typer.Option(help="Only events of this name, such as call.denied or 'approval.*'.")
    ] = "*",
    customer: Annotated[str, typer.Option(help="Only events of this customer.")] = "",
    key: Annotated[str, typer.Option(help="Only events of this key.")] = "",
    server: Annotated[str, typer.Option(help="Only events of this server.")] = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Print the newest events; with -f, follow new events. --json prints one object per line."""
    wanted = {"event": like(event), "customer": customer, "key": key, "server": server}
    asyncio.run(_tail(state_dir, lines, wanted, follow=follow, as_json=as_json))


async def _tail(
    state_dir: Path, lines: int, wanted: Mapping[str, str], *, follow: bool, as_json: bool
) -> None:
    async with opened_queries(state_dir) as queries:

        async def found(more: str) -> list[dict[str, Any]]:
            request = AuditQuery(sql=f"{_EVENTS} {more}", limit=BATCH, parameters=dict(wanted))
            return _records(await queries.request(request, RowsReply, SECONDS))

        newest = f"ORDER BY at DESC, stream_seq DESC LIMIT {lines}"
        rows = await found(newest) if lines else []
        _show(sorted(rows, key=_place), as_json=as_json)
        last = max(map(_place, rows), default=None) or await _end(queries)
        while follow:
            await asyncio.sleep(POLL_SECONDS)
            after = f"(stream_seq, line) > ({last[0]}, {last[1]})"
            rows = await found(f"AND {after} ORDER BY stream_seq, line LIMIT {BATCH}")
            _show(rows, as_json=as_json)
            last = max(map(_place, rows), default=last)


async def _end(queries: Queries) -> tuple[int, int]:
    request = AuditQuery(sql="SELECT max(stream_seq) FROM events", limit=1)
    (row,) = (await queries.request(request, RowsReply, SECONDS)).rows
    return int(row[0] or 0), 1 << 15


def _place(row: dict[str, Any]) -> tuple[int, int]:
    return int(row["stream_seq"]), int(row["line"])


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        say(*(msgspec.json.encode(row).decode() for row in rows))
    else:
        say(*map(_line, rows))


def _line(row: dict[str, Any]) -> str:
    joint = SEPARATOR if is_model_method(row["method"]) else "__"
    tool = f"{row['server']}{joint}{row['tool']}" if row["tool"] else row["server"]
    parts = [str(row["at"])[:23], f"{row['event']:16}", f"{row['key'] or '-':12}", tool]
    if row["code"]:
        parts.append(f"{row['code']}: {row['reason']}")
    elif row["reason"]:
        parts.append(row["reason"])
    if int(row["charge"]):
        parts.append(f"${int(row['charge']) / 1e6:g}")
    if int(row["latency_us"]):
        parts.append(f"{int(row['latency_us']) / 1000:.1f} ms")
    if row["event"] == ModelUsed.NAME:
        parts.append(f"{row['input_tokens']} tokens in, {row['output_tokens']} out")
    return "  ".join(parts).rstrip()
