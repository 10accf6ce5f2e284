"""Recorded calls, as ClickHouse selects them."""

import re
from typing import Any

import msgspec

from toolbus_audit.clickhouse.query import ReadOnlyStore, decode
from toolbus_audit.projections.recorded_calls import (
    CHARGED_METHODS,
    MAX_ROWS,
    MAX_UNRESOLVED,
    NO_EVENT,
)
from toolbus_common.contracts import (
    OpenCallsQuery,
    SpendingQuery,
    UnresolvedCall,
    UnresolvedCallsQuery,
)
from toolbus_common.contracts.queries.base import CORRECTABLE_SECONDS
from toolbus_common.errors import InvalidError

_CUSTOMER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

# One row per call allowed in a period. The first outcome counts, as in the ledger. A charge as
# unknown is not an outcome, unless no outcome arrived within the time for corrections.
_CALLS = """
SELECT call_id,
    anyIf(key, is_intent) AS key_,
    anyIf(user, is_intent) AS user_,
    anyIf(team, is_intent) AS team_,
    anyIf(server, is_intent) AS server_,
    anyIf(tool, is_intent) AS tool_,
    anyIf(parent_id, is_intent) AS parent_,
    anyIf(trace_id, is_intent) AS trace_,
    anyIf(charge, is_intent) AS held_,
    anyIf(arrayStringConcat(JSONExtract(detail, 'aliases', 'Array(String)'), ' '), is_intent)
        AS aliases_,
    maxIf(JSONExtractFloat(detail, 'deadline'), is_intent OR is_extension) AS deadline_,
    toFloat64(minIf(at, is_intent)) AS at_,
    minIf(stream_seq, is_intent) AS seq_,
    countIf(is_unknown) AS unknowns,
    toFloat64(maxIf(at, is_unknown)) AS unknown_at,
    countIf(is_outcome) AS outcomes,
    toFloat64(minIf(at, is_outcome)) AS outcome_at,
    outcomes > 0 AND (unknowns = 0 OR outcome_at <= unknown_at + {correctable}) AS ended,
    argMinIf(charge, (stream_seq, line), is_outcome) AS outcome_charge,
    argMinIf(sent AND result_type != 'input_required', (stream_seq, line), is_outcome) AS counted,
    maxIf(charge, is_unknown) AS unknown_charge
FROM (
    SELECT *, event = 'call.allowed' AS is_intent, event = 'call.extended' AS is_extension,
        NOT is_intent AND endsWith(id, '.unknown') AS is_unknown,
        NOT is_intent AND NOT is_extension AND NOT is_unknown AS is_outcome
    FROM events
    WHERE customer = '{customer}'
        AND event IN ('call.allowed', 'call.extended', 'call.completed', 'call.failed')
        AND method IN {methods} AND at >= fromUnixTimestamp64Micro({start})
        AND call_id IN (
            SELECT call_id FROM events WHERE customer = '{customer}' AND event = 'call.allowed'
            AND at >= fromUnixTimestamp64Micro({start}) AND at < fromUnixTimestamp64Micro({end})))
GROUP BY call_id
"""
_SPENDING = """
SELECT key_, user_, team_, server_, tool_, {step}, sum(n) AS calls, sum(c) AS micro{aliases} FROM (
    SELECT *, if(ended, counted, 1) AS n,
        if(ended, if(counted, outcome_charge, 0), unknown_charge) AS c
    FROM ({calls}) WHERE ended OR unknowns > 0)
GROUP BY 1, 2, 3, 4, 5, 6{aliases}
"""
_OPEN = """
SELECT call_id, parent_, trace_, key_, user_, team_, server_, tool_, held_, at_, deadline_,
    if(unknowns > 0, unknown_at, 0), seq_, aliases_ FROM ({calls})
WHERE outcomes = 0 AND (unknowns = 0 OR unknown_at >= {late})
"""
_MESSAGES = """
SELECT uniqExact(stream_seq) FROM (
    SELECT stream_seq FROM events WHERE customer = '{customer}' AND stream = '{stream}'
        AND stream_seq BETWEEN {first:d} AND {last:d}
    UNION ALL
    SELECT stream_seq FROM dead_letters WHERE endsWith(subject, '.{customer}')
        AND stream_seq BETWEEN {first:d} AND {last:d})
"""
_SEQUENCES = """
SELECT DISTINCT stream_seq FROM (
    SELECT stream_seq FROM events WHERE stream = '{stream}' AND stream_seq IN ({sequences})
    UNION ALL
    SELECT stream_seq FROM dead_letters
    WHERE endsWith(subject, '.{customer}') AND stream_seq IN ({sequences}))
"""
_IDS = """
SELECT DISTINCT id FROM events
WHERE customer = '{customer}' AND has(JSONExtract({{ids:String}}, 'Array(String)'), id)
"""
# Selects the few unresolved calls first, and only then reads their intents.
_UNRESOLVED = """
SELECT call_id, parent_id, trace_id, customer, key, server, tool, method, charge,
    toFloat64(at) AS at_, greatest(JSONExtractFloat(detail, 'deadline'), extended.deadline),
    JSONExtractBool(detail, 'reserved')
FROM events
LEFT JOIN (
    SELECT call_id, max(JSONExtractFloat(detail, 'deadline')) AS deadline FROM events
    WHERE event = 'call.extended' AND at >= fromUnixTimestamp64Micro({start})
    GROUP BY call_id) AS extended USING call_id
WHERE event = 'call.allowed' AND at >= fromUnixTimestamp64Micro({start})
    AND at < fromUnixTimestamp64Micro({end})
    AND call_id IN (
        SELECT call_id FROM events
        WHERE at >= fromUnixTimestamp64Micro({start})
            AND (event IN ('call.completed', 'call.failed')
                OR (event = 'call.allowed' AND at < fromUnixTimestamp64Micro({end})))
        GROUP BY call_id HAVING countIf(event != 'call.allowed') = 0)
ORDER BY at_, call_id
"""


class ClickHouseCalls:
    """Recorded calls in a store of ClickHouse."""

    def __init__(self, store: ReadOnlyStore) -> None:
        self._store = store

    async def charges(self, query: SpendingQuery) -> list[list[Any]]:
        """Return the charges by key, user, team, server, tool, step, and aliases if requested."""
        step = f"intDiv(toInt64(at_), {query.step:d})" if query.step else "0"
        aliases = ", aliases_" if query.aliases else ""
        sql = _SPENDING.format(calls=_calls(query), step=step, aliases=aliases)
        return await self._rows(sql, MAX_ROWS)

    async def oldest(self) -> float:
        """Return the time of the oldest event, or `NO_EVENT`."""
        found = await self._rows("SELECT toFloat64(min(at)), count() FROM events", 1)
        return float(found[0][0]) if found and found[0][1] else NO_EVENT

    async def messages(self, query: SpendingQuery) -> int:
        """Return how many messages of the customer are stored, as events or as dead letters."""
        sql = _MESSAGES.format(
            customer=_customer(query), stream=query.stream, first=query.first, last=query.last
        )
        return int((await self._rows(sql, 1))[0][0])

    async def sequences(self, query: SpendingQuery) -> tuple[int, ...]:
        """Return which of the query's messages are stored."""
        wanted = ",".join(map(str, query.sequences))
        sql = _SEQUENCES.format(customer=_customer(query), stream=query.stream, sequences=wanted)
        return tuple(int(number) for (number,) in await self._rows(sql, MAX_ROWS))

    async def ids(self, query: SpendingQuery) -> tuple[str, ...]:
        """Return which of the query's events are stored."""
        given = {"ids": msgspec.json.encode(query.ids).decode()}
        sql = _IDS.format(customer=_customer(query))
        found = decode(await self._store.query(sql, MAX_ROWS, given))
        return tuple(str(event_id) for (event_id,) in found.data)

    async def open_calls(self, query: OpenCallsQuery) -> list[list[Any]]:
        """Return the calls without an outcome, with the fields of `OpenCall` in order."""
        sql = _OPEN.format(calls=_calls(query), late=f"{query.late:.6f}")
        return await self._rows(sql, MAX_ROWS)

    async def unresolved(self, query: UnresolvedCallsQuery) -> list[UnresolvedCall]:
        """Return the unresolved calls of a period, the oldest first."""
        sql = _UNRESOLVED.format(start=int(query.start * 1e6), end=int(query.end * 1e6))
        names = tuple(UnresolvedCall.model_fields)
        rows = await self._rows(sql, MAX_UNRESOLVED)
        return [UnresolvedCall(**dict(zip(names, row, strict=True))) for row in rows]

    async def _rows(self, sql: str, maximum: int) -> list[list[Any]]:
        return decode(await self._store.query(sql, maximum + 1)).data


def _customer(query: SpendingQuery | OpenCallsQuery) -> str:
    """Return the query's customer, which is a part of statements. Raises `InvalidError`."""
    if not _CUSTOMER_NAME.fullmatch(query.customer):
        raise InvalidError(
            "The query's `customer` is not a valid name; use letters, digits, '_' and '-'."
        )
    return query.customer


def _calls(query: SpendingQuery | OpenCallsQuery) -> str:
    return _CALLS.format(
        customer=_customer(query),
        methods=CHARGED_METHODS,
        start=int(query.start * 1e6),
        end=int(query.end * 1e6),
        correctable=CORRECTABLE_SECONDS,
    )
