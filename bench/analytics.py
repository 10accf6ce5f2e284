"""Dashboard queries over ten million events (`make bench-analytics`).

The events are inserted through the real schema with its roll-ups; the queries are those of
deploy/grafana, each over its dashboard's time range.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from rich.table import Table

from figures import console, keep, load, met, row
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.ingest.rollups import roll_up_days, roll_up_hours
from toolbus_audit.settings import Settings

DASHBOARDS = Path(__file__).resolve().parents[1] / "deploy" / "grafana"
DAYS = 30
AT_ONCE = 1_000_000  # events per INSERT
MAX_SECONDS = 1.0
_UNITS = {"h": "hours", "d": "days"}

# Of a hundred events: 46 intents, 46 outcomes of which one failed, 3 denials, 1 of models, and
# others. A key has eight of forty tools, and few keys make most calls.
_LOAD = """
INSERT INTO events (stream_seq, line, event, id, at, producer, seq, customer, team, user,
    environment, key, call_id, server, tool, method, approval, definition_digest, code, rule,
    shadow, reason, charge, latency_us, is_error, sent, stream, suggested_by, guards, flow,
    detail)
SELECT number + 1, 0, kind, concat(call, '.', kind), moment, 'policy-1', number, customer,
    if(kind IN ('call.allowed', 'call.denied', 'approval.requested'), of_team, ''),
    if(kind = 'call.allowed', concat('user', toString(who % 50)), ''), 'production',
    if(kind IN ('server.lost', 'definition.changed'), '', concat('key', toString(who))),
    call, if(of_model, concat('provider', toString(which % 3)),
        concat('server', toString(which % 12))),
    if(of_model, concat('model', toString(which % 5)), concat('tool', toString(which))),
    if(of_model, 'models/chat', 'tools/call'),
    if(startsWith(kind, 'approval.'), call, ''),
    if(kind = 'call.allowed', hex(sipHash128(which)), ''),
    multiIf(kind = 'call.denied', ['budget_exceeded', 'rule_denied', 'rate_exceeded'][h % 3 + 1],
        kind = 'call.failed', ['upstream_timeout', 'upstream_dead'][h % 2 + 1], ''),
    if(kind = 'call.denied' AND h % 3 = 1, concat('rule', toString(h % 7)), ''),
    if(kind = 'call.allowed' AND h % 50 = 0, ['shadow-rule'], []),
    if(kind IN ('call.denied', 'call.failed'), 'A sentence about what went wrong.', ''),
    if(kind IN ('call.allowed', 'call.completed', 'model.used')
        OR (kind = 'call.failed' AND h % 4 = 2),
        (which + 1) * 100, 0),
    if(kind IN ('call.completed', 'model.used'), 2000 + toInt64(exp(h % 1000 / 100) * 30), 0),
    kind = 'call.completed' AND h % 60 = 0, kind = 'call.completed', '1',
    if(kind = 'call.allowed' AND h % 40 = 0, hex(c + 1), ''),
    multiIf(kind != 'call.completed' OR h % 20 != 0, '', h % 200 = 0, {failed}, {found}),
    if(kind = 'call.denied' AND h % 20 = 0, {flow}, ''), {detail}
FROM (
    SELECT number, sipHash64(number) AS h, sipHash64(intDiv(number, 2)) AS c,
        if(number > {total} * 0.97 AND h % 997 = 0, 200, toUInt64(200 * pow(c % 10007 / 10007, 3)))
            AS who,
        toUInt64(who * 7 + 8 * pow(intDiv(c, 10007) % 10007 / 10007, 2)) % 40 AS which,
        concat('team', toString(who % 20)) AS of_team,
        concat('customer', toString(who % 20 % 5)) AS customer,
        hex(c) AS call,
        c % 1000 >= 970 AND c % 1000 < 980 AS of_model,
        toDateTime64({until}, 6, 'UTC') - toIntervalMillisecond(
            toInt64((1 - number / {total}) * {span})) AS moment,
        multiIf(
            c % 1000 < 940, if(number % 2 = 0, 'call.allowed',
                multiIf(h % 400 = 7, 'server.lost', h % 100 < 98, 'call.completed', 'call.failed')),
            c % 1000 < 970, 'call.denied',
            of_model, multiIf(number % 2 = 1, 'model.used',
                h % 9 < 8, 'call.completed', 'call.failed'),
            c % 1000 < 993, 'context.spent',
            c % 1000 < 994, 'access.rejected',
            c % 1000 < 996, if(number % 2 = 0, 'approval.requested', 'approval.granted'),
            c % 1000 < 997, 'server.lost',
            c % 1000 < 998, 'definition.changed',
            c % 1000 < 999, if(number % 2 = 0, 'key.created', 'config.changed'),
            if(number % 2 = 0, 'run.started', 'run.completed')
        ) AS kind
    FROM numbers({start}, {count})
)
"""
_CHECK = """concat('[{{"guard":"secrets","phase":"results","version":"8.30","bytes":',
    toString(h % 9000), ',"us":', toString(h % 300), {rest}, '}}]')"""
_FOUND = _CHECK.format(rest="""',"verdict":"redacted","findings":["github-pat"],"score":1.0'""")
_FAILED = _CHECK.format(rest="""',"verdict":"failed","error":"it took longer than 2 s"'""")
_FLOW = """'{"run":"r1","verdict":"refused","private":"c1","untrusted":"c2",
    "chain":["crm__read","web__fetch"],"reads":["private"],"writes":"outside"}'"""
_DETAIL = """concat('{"event":"', kind, '","id":"', call, '","at":',
    toString(toUnixTimestamp(moment)),
    ',"customer":"', customer, '","call_id":"', call, '","trace_id":"', hex(sipHash128(c)),
    '","prev":"', hex(sipHash128(h)), hex(sipHash128(h + 1)), '"', multiIf(
    kind = 'context.spent', concat(',"own_tokens":', toString(h % 900), ',"request_tokens":',
        toString(h % 400), ',"answer_tokens":', toString(h % 700),
        ',"classic":{"server1":', toString(h % 9000), ',"server2":', toString(h % 7000), '}'),
    kind = 'model.used', concat(',"alias":"fast","provider_kind":"openai","streamed":true',
        ',"input_tokens":', toString(h % 9000 + 100), ',"cached_tokens":', toString(h % 100),
        ',"output_tokens":', toString(h % 900 + 1), ',"attempt":', toString(h % 7 = 0),
        ',"first_token_us":', toString(h % 900 + 100), ',"finish_reason":"stop","cut":false',
        if(h % 5 = 0, ',"cache":"hit","saved":900,"saved_tokens":70', ',"cache":"miss"')),
    kind = 'call.allowed', concat(',"arguments_digest":"', hex(sipHash128(h)), '","deadline":',
        toString(toUnixTimestamp(moment) + 30)),
    kind = 'access.rejected', concat(',"entrance":"mcp","address":"192.0.2.', toString(h % 50),
        '","count":', toString(h % 90 + 1), ',"since":', toString(toUnixTimestamp(moment) - 60)),
    kind IN ('config.changed', 'key.created', 'approval.granted', 'definition.changed'),
        ',"by":"operator","kind":"keys","name":"bot","before":"","after":"{}","revision":7',
    ''), '}')"""


@dataclass(frozen=True)
class Panel:
    """A query of a dashboard as Grafana's plugin sends it."""

    board: str
    title: str
    sql: str

    @property
    def name(self) -> str:
        """The name in the figures."""
        return f"{self.board}: {self.title}"


def panels(now: datetime) -> Iterator[Panel]:
    """Return every ClickHouse query of every dashboard with its macros expanded."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        for chosen in board["templating"]["list"]:
            if chosen["type"] == "query":
                yield Panel(path.stem, chosen["label"], chosen["query"])
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                if sql := target.get("rawSql"):
                    since = now - _span(board["time"]["from"])
                    yield Panel(path.stem, panel["title"], expanded(sql, since, now))


def _span(span: str) -> timedelta:
    return timedelta(**{_UNITS[span[-1]]: int(span.removeprefix("now-")[:-1])})


def expanded(sql: str, since: datetime, until: datetime) -> str:
    """Return the statement with the plugin's macros expanded, for all customers."""
    first, last = int(since.timestamp()), int(until.timestamp())
    step = max((last - first) // 500, 60)
    sql = re.sub(
        r"\$__timeFilter\((\w+)\)",
        rf"\1 >= toDateTime({first}) AND \1 <= toDateTime({last})", sql,
    )  # fmt: skip
    sql = re.sub(
        r"\$__dateFilter\((\w+)\)",
        rf"\1 >= toDate('{since:%Y-%m-%d}') AND \1 <= toDate('{until:%Y-%m-%d}')", sql,
    )  # fmt: skip
    sql = re.sub(
        r"\$__timeInterval\((\w+)\)",
        rf"toStartOfInterval(toDateTime(\1), INTERVAL {step} second)", sql,
    )  # fmt: skip
    sql = re.sub(r"\$__conditionalAll\(.*?\}\), \$\w+\)", "1=1", sql)
    if "$" in sql:
        raise ValueError(f"unknown macro: {sql[sql.index('$') :][:40]}")
    return sql


def loading(total: int, until: datetime, days: int) -> Iterator[str]:
    """Yield statements that insert `count` events, evenly over the last days."""
    for start in range(0, total, AT_ONCE):
        yield _LOAD.format(
            detail=_DETAIL, found=_FOUND, failed=_FAILED, flow=_FLOW,
            until=f"'{until:%Y-%m-%d %H:%M:%S}'", total=total, start=start,
            count=min(AT_ONCE, total - start), span=days * 86_400_000,
        )  # fmt: skip


async def fill_tables(store: ClickHouse, total: int, until: datetime, days: int = DAYS) -> None:
    """Fill the tables of an open store."""
    for statement in loading(total, until, days):
        await store.run_in_background(statement)
    while await roll_up_hours(store.run_in_background) or await roll_up_days(
        store.run_in_background
    ):
        pass


def main() -> int:
    """Run the benchmark; return 0 if every query meets the demand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=20, help="executions of each query")
    parser.add_argument(
        "--data", type=Path, help="directory of the store; existing events are used"
    )
    parser.add_argument("--only", default="", help="only panels with this text in their name")
    options = parser.parse_args()
    before = load()
    with tempfile.TemporaryDirectory(prefix="toolbus-analytics-") as name:
        figures = asyncio.run(_measured(options.data or Path(name), options))
    result = figures["panels"]
    rows = [row(f"{each['panel']}: p95 s", each["p95"], "<=", MAX_SECONDS) for each in result]
    _show(result)
    console.print(
        f"{figures['events']:,.0f} events, inserted in {figures['load_seconds']:.0f} s "
        f"(0: existing events), {figures['megabytes']:,.0f} MB; "
        f"roll-ups: {figures['hours']:,.0f} rows by hour, "
        f"{figures['days']:,.0f} by day"
    )
    keep("analytics", {"before": before, "after": load(), **figures, "rows": rows})
    return 0 if met(rows) else 1


def _show(panels: list[dict[str, Any]]) -> None:
    table = Table("panel", "p50 s", "p95 s", "CPU s", f"p95 <= {MAX_SECONDS:g} s")
    for each in panels:
        figures = (f"{each[name]:.3f}" for name in ("p50", "p95", "cpu"))
        verdict = "" if each["p95"] <= MAX_SECONDS else "[bold red]MISSED[/]"
        table.add_row(each["panel"], *figures, verdict)
    console.print(table)


async def _measured(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    store = ClickHouse(Settings(state_dir=directory, audit_query_seconds=60.0))
    await store.open()
    try:
        began, seconds = perf_counter(), 0.0
        if not await _figure(store, "count()", "events"):
            await fill_tables(store, options.events, datetime.now(UTC))
            seconds = perf_counter() - began
        await _merged(store)
        until = datetime.fromtimestamp(
            await _figure(store, "toUnixTimestamp(max(at))", "events"), UTC
        )
        found = [each for each in panels(until) if options.only in each.name]
        return {
            "events": await _figure(store, "count()", "events"),
            "load_seconds": seconds,
            "megabytes": await _figure(
                store, "sum(bytes_on_disk) / 1e6", "system.parts WHERE active"
            ),
            "hours": await _figure(store, "count()", "rollup_hours"),
            "days": await _figure(store, "count()", "rollup_days"),
            "panels": [await _timed(store, each, options.rounds) for each in found],
        }
    finally:
        await store.close()


async def _merged(store: ClickHouse) -> None:
    """Wait until the engine has merged its parts."""
    while await _figure(store, "count()", "system.merges"):  # noqa: ASYNC110 - the engine's own
        await asyncio.sleep(1.0)


async def _timed(store: ClickHouse, panel: Panel, rounds: int) -> dict[str, Any]:
    took, used = [], []
    for _ in range(rounds):
        began, before = perf_counter(), process_time()
        await store.query(panel.sql, 10_000)
        took.append(perf_counter() - began)
        used.append(process_time() - before)
    return {
        "panel": panel.name,
        "p50": statistics.median(took),
        "p95": statistics.quantiles(took, n=20)[-1] if rounds > 1 else took[0],
        "cpu": statistics.median(used),
    }


async def _figure(store: ClickHouse, what: str, of: str) -> float:
    return float((await store.select(f"SELECT {what} FROM {of}"))[0][0])


if __name__ == "__main__":
    sys.exit(main())
