"""Spending and open calls as events record them, for policy to rebuild its counters."""

import re
from typing import Any

import msgspec

from toolbus_audit.clickhouse.query import ReadOnlyStore, decode
from toolbus_audit.events_file import projections as in_file
from toolbus_audit.events_file.store import EventsFile
from toolbus_common.contracts import (
    TOOLS_CALL,
    OpenCall,
    OpenCallsQuery,
    OpenCallsReply,
    SpendingQuery,
    SpendingReply,
)
from toolbus_common.contracts.model_calls import MODEL_METHODS
from toolbus_common.errors import InvalidError
from toolbus_common.privacy.key_store import PersonKeys

MAX_ROWS = 10_000
CORRECTABLE = 86_400  # seconds in which an outcome may still correct a charge as unknown
_CHARGED = tuple(sorted({TOOLS_CALL, *MODEL_METHODS}))  # methods of calls that have a price
_STREAM = re.compile(r"[0-9]{1,32}")
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


async def spending(store: ReadOnlyStore, people: PersonKeys, query: SpendingQuery) -> SpendingReply:
    """Return the charges by key, user, team, server, tool and step. Raises `InvalidError`."""
    rows = await _charges(store, query)
    return SpendingReply(
        rows=tuple(map(tuple, people.revealed(rows[:MAX_ROWS]))),
        since=await _oldest(store),
        more=len(rows) > MAX_ROWS,
        messages=await _messages(store, query) if query.last else 0,
        sequences=await _sequences(store, query) if query.sequences else (),
        ids=await _ids(store, query) if query.ids else (),
    )


async def _charges(store: ReadOnlyStore, query: SpendingQuery) -> list[list[Any]]:
    if isinstance(store, EventsFile):
        return await in_file.charges(store, query, _CHARGED, CORRECTABLE)
    step = f"intDiv(toInt64(at_), {query.step:d})" if query.step else "0"
    aliases = ", aliases_" if query.aliases else ""
    return await _rows(store, _SPENDING.format(calls=_calls(query), step=step, aliases=aliases))


async def _oldest(store: ReadOnlyStore) -> float:
    if isinstance(store, EventsFile):
        return await in_file.oldest(store)
    found = await _rows(store, "SELECT toFloat64(min(at)), count() FROM events")
    return float(found[0][0]) if found and found[0][1] else 1e18


async def _messages(store: ReadOnlyStore, query: SpendingQuery) -> int:
    """Return how many messages of the customer are stored, as events or as dead letters."""
    _check_stream(query)
    if isinstance(store, EventsFile):
        return await in_file.messages(store, query)
    sql = _MESSAGES.format(
        customer=query.customer, stream=query.stream, first=query.first, last=query.last
    )
    return int((await _rows(store, sql))[0][0])


async def _sequences(store: ReadOnlyStore, query: SpendingQuery) -> tuple[int, ...]:
    _check_stream(query)
    if isinstance(store, EventsFile):
        return await in_file.sequences(store, query)
    wanted = ",".join(map(str, query.sequences))
    sql = _SEQUENCES.format(customer=query.customer, stream=query.stream, sequences=wanted)
    return tuple(int(number) for (number,) in await _rows(store, sql))


async def _ids(store: ReadOnlyStore, query: SpendingQuery) -> tuple[str, ...]:
    if isinstance(store, EventsFile):
        return await in_file.ids(store, query)
    given = {"ids": msgspec.json.encode(query.ids).decode()}
    found = decode(await store.query(_IDS.format(customer=query.customer), MAX_ROWS, given))
    return tuple(str(found_id) for (found_id,) in found.data)


def _check_stream(query: SpendingQuery) -> None:
    if not _STREAM.fullmatch(query.stream):
        raise InvalidError("The query's `stream` is not the id of a stream; use its digits.")


async def open_calls(
    store: ReadOnlyStore, people: PersonKeys, query: OpenCallsQuery
) -> OpenCallsReply:
    """Return the calls without an outcome. Raises `InvalidError`."""
    if isinstance(store, EventsFile):
        rows = await in_file.open_calls(store, query, _CHARGED)
    else:
        rows = await _rows(store, _OPEN.format(calls=_calls(query), late=f"{query.late:.6f}"))
    names = tuple(OpenCall.model_fields)
    plain = people.revealed(rows[:MAX_ROWS])
    calls = [OpenCall(**dict(zip(names, row, strict=True))) for row in plain]
    return OpenCallsReply(calls=tuple(calls), more=len(rows) > MAX_ROWS)


def _calls(query: SpendingQuery | OpenCallsQuery) -> str:
    if not _CUSTOMER_NAME.fullmatch(query.customer):
        raise InvalidError(
            "The query's `customer` is not a valid name; use letters, digits, '_' and '-'."
        )
    return _CALLS.format(
        customer=query.customer,
        methods=_CHARGED,
        start=int(query.start * 1e6),
        end=int(query.end * 1e6),
        correctable=CORRECTABLE,
    )


async def _rows(store: ReadOnlyStore, sql: str) -> list[list[Any]]:
    return decode(await store.query(sql, MAX_ROWS + 1)).data
