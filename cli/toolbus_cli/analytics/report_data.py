"""Figures of a report about calls, queried from the audit service."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.saved_queries.timestamps import written

By = str  # a key of NAMED
Row = dict[str, Any]
RunQuery = Callable[[AuditQuery], Awaitable[RowsReply]]

MAX_NAMES = 50  # maximum number of rows of the table
HOURS_SHOWN = timedelta(days=3)  # the charts of a longer period have one bar per day
NAMED: Mapping[str, str] = {
    "customer": "customer",
    "team": "team",
    "key": "key",
    "server": "server",
    "tool": "concat(server, '__', tool)",
}
_MS = (
    "arrayMap(us -> if(isNaN(us), 0, round(us / 1e3, 1)),"
    " quantilesTDigestMerge(0.5, 0.9, 0.95, 0.99)(latency))"
)
_FIGURES = f"""sum(calls) AS all_calls, sum(completed) AS all_completed, sum(failed) AS all_failed,
    sum(denied) AS all_denied, sum(errors) AS all_errors, sum(charge) / 1e6 AS dollars,
    {_MS} AS q, q[1] AS p50_ms, q[3] AS p95_ms
FROM calls_by_hour WHERE hour >= {{since:DateTime}} AND hour < {{until:DateTime}}"""
_TOTAL = f"SELECT {_FIGURES}"
_TABLE = f"SELECT {{named}} AS name, {_FIGURES} GROUP BY name ORDER BY dollars DESC, all_calls DESC"
_STEPS = f"SELECT {{step}}(hour) AS step, {_FIGURES} GROUP BY step ORDER BY step"
_CODES = """SELECT code, sum(failed + denied) AS calls FROM calls_by_hour
WHERE hour >= {since:DateTime} AND hour < {until:DateTime} AND code != '' GROUP BY code
HAVING calls > 0 ORDER BY calls DESC"""
_TOKENS = """SELECT sum(spent_tokens) AS spent, sum(classic_tokens) AS classic FROM context_by_hour
WHERE hour >= {since:DateTime} AND hour < {until:DateTime}"""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures about calls in a period; each row maps column names to values."""

    by: By
    since: str
    until: str
    total: Row = field(default_factory=dict)
    tokens: Row = field(default_factory=dict)
    table: list[Row] = field(default_factory=list)
    more: bool = False
    step: str = "hour"
    steps: list[Row] = field(default_factory=list)
    codes: list[Row] = field(default_factory=list)

    @property
    def as_data(self) -> dict[str, Any]:
        """The report as a dictionary for JSON."""
        return asdict(self)


async def gathered(run_query: RunQuery, by: By, since: datetime, until: datetime) -> Report:
    """Query audit and return the report of a period; `since` is rounded down to the hour."""
    start = since.replace(minute=0, second=0, microsecond=0)
    bounds = {"since": written(start), "until": written(until)}

    async def rows(sql: str, limit: int = 1000) -> tuple[list[Row], bool]:
        found = await run_query(AuditQuery(sql=sql, limit=limit, parameters=bounds))
        named = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        return [{name: row[name] for name in row if name != "q"} for row in named], found.more

    step = "hour" if until - start <= HOURS_SHOWN else "day"
    truncated = "toStartOfHour" if step == "hour" else "toStartOfDay"
    table, more = await rows(_TABLE.replace("{named}", NAMED[by]), MAX_NAMES)
    (total, _), (tokens, _) = await rows(_TOTAL), await rows(_TOKENS)
    (steps, _), (codes, _) = await rows(_STEPS.replace("{step}", truncated)), await rows(_CODES, 20)
    return Report(
        by, bounds["since"], bounds["until"], total[0], tokens[0], table, more, step, steps, codes
    )
