"""What the events say was spent, and which calls are still open: for counters made anew."""

import re
from typing import Any

import msgspec

from toolbus_audit.clickhouse.query import Answers
from toolbus_common.contracts import (
    OpenCall,
    OpenCallsQuery,
    OpenCallsReply,
    SpendingQuery,
    SpendingReply,
)
from toolbus_common.errors import InvalidError
from toolbus_common.privacy.key_store import PersonKeys

MOST_ROWS = 10_000
CORRECTABLE = 86_400  # seconds an outcome may still correct what was charged as unknown
_SCOPE = re.compile(r"[A-Za-z0-9_-]{1,64}")

# One row per call allowed in a time. The first outcome that came counts, as in the ledger; that a
# call was charged as unknown is no outcome, unless none came within the day it could be corrected.
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
    maxIf(JSONExtractFloat(detail, 'deadline'), is_intent OR is_extension) AS deadline_,
    toFloat64(minIf(at, is_intent)) AS at_,
    minIf(stream_seq, is_intent) AS seq_,
    countIf(is_unknown) AS unknowns,
    toFloat64(maxIf(at, is_unknown)) AS unknown_at,
    countIf(is_outcome) AS outcomes,
    toFloat64(minIf(at, is_outcome)) AS outcome_at,
    outcomes > 0 AND (unknowns = 0 OR outcome_at <= unknown_at + {correctable}) AS ended,
    argMinIf(charge, (stream_seq, line), is_outcome) AS outcome_charge,
    argMinIf(sent AND ending != 'input_required', (stream_seq, line), is_outcome) AS counted,
    maxIf(charge, is_unknown) AS unknown_charge
FROM (
    SELECT *, event = 'call.allowed' AS is_intent, event = 'call.extended' AS is_extension,
        NOT is_intent AND endsWith(id, '.unknown') AS is_unknown,
        NOT is_intent AND NOT is_extension AND NOT is_unknown AS is_outcome
    FROM events
    WHERE customer = '{customer}'
        AND event IN ('call.allowed', 'call.extended', 'call.completed', 'call.failed')
        AND method = 'tools/call' AND at >= fromUnixTimestamp64Micro({start})
        AND call_id IN (
            SELECT call_id FROM events WHERE customer = '{customer}' AND event = 'call.allowed'
            AND at >= fromUnixTimestamp64Micro({start}) AND at < fromUnixTimestamp64Micro({end})))
GROUP BY call_id
"""
_SPENDING = """
SELECT key_, user_, team_, server_, tool_, {step}, sum(n) AS calls, sum(c) AS micro FROM (
    SELECT *, if(ended, counted, 1) AS n,
        if(ended, if(counted, outcome_charge, 0), unknown_charge) AS c
    FROM ({calls}) WHERE ended OR unknowns > 0)
GROUP BY 1, 2, 3, 4, 5, 6
"""
_OPEN = """
SELECT call_id, parent_, trace_, key_, user_, team_, server_, tool_, held_, at_, deadline_,
    if(unknowns > 0, unknown_at, 0), seq_ FROM ({calls})
WHERE outcomes = 0 AND (unknowns = 0 OR unknown_at >= {late})
"""


class _Told(msgspec.Struct):
    data: list[list[Any]] = []


_decode = msgspec.json.Decoder(_Told).decode


async def spending(store: Answers, people: PersonKeys, question: SpendingQuery) -> SpendingReply:
    """What was charged, by who and what. Raises `InvalidError`."""
    step = f"intDiv(toInt64(at_), {question.step:d})" if question.step else "0"
    sql = _SPENDING.format(calls=_calls(question), step=step)
    rows = await _rows(store, sql)
    oldest = await _rows(store, "SELECT toFloat64(min(at)), count() FROM events")
    return SpendingReply(
        rows=tuple(map(tuple, people.revealed(rows[:MOST_ROWS]))),
        since=oldest[0][0] if oldest and oldest[0][1] else float("1e18"),
        more=len(rows) > MOST_ROWS,
    )


async def open_calls(
    store: Answers, people: PersonKeys, question: OpenCallsQuery
) -> OpenCallsReply:
    """The calls no outcome has ended. Raises `InvalidError`."""
    sql = _OPEN.format(calls=_calls(question), late=f"{question.late:.6f}")
    rows = await _rows(store, sql)
    names = tuple(OpenCall.model_fields)
    plain = people.revealed(rows[:MOST_ROWS])
    told = [OpenCall(**dict(zip(names, row, strict=True))) for row in plain]
    return OpenCallsReply(calls=tuple(told), more=len(rows) > MOST_ROWS)


def _calls(question: SpendingQuery | OpenCallsQuery) -> str:
    if not _SCOPE.fullmatch(question.customer):
        raise InvalidError("That is no customer's name.")
    return _CALLS.format(
        customer=question.customer,
        start=int(question.start * 1e6),
        end=int(question.end * 1e6),
        correctable=CORRECTABLE,
    )


async def _rows(store: Answers, sql: str) -> list[list[Any]]:
    data = await store.ask(sql, MOST_ROWS + 1)
    return _decode(data).data if data else []
