"""Recorded calls, as the events file of the lite form selects them."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolbus_audit.events_file.store import EventsFile
from toolbus_audit.projections.recorded_calls import CHARGED_METHODS, MAX_UNRESOLVED, NO_EVENT
from toolbus_common.contracts import (
    OpenCallsQuery,
    SpendingQuery,
    UnresolvedCall,
    UnresolvedCallsQuery,
)
from toolbus_common.contracts.queries.base import CORRECTABLE_SECONDS

# Outcomes are sorted as they are stored, because the first one counts.
_CALLS = """
SELECT event, id, at, call_id, key, user, team, server, tool, parent_id, trace_id, charge,
    stream_seq, sent, result_type, ifnull(json_extract(detail, '$.deadline'), 0.0),
    ifnull(json_extract(detail, '$.aliases'), '[]')
FROM event_rows
WHERE customer = ?1 AND event IN ('call.allowed', 'call.extended', 'call.completed', 'call.failed')
    AND method IN {methods} AND at >= ?2
    AND call_id IN (
        SELECT call_id FROM event_rows
        WHERE customer = ?1 AND event = 'call.allowed' AND at >= ?2 AND at < ?3)
ORDER BY stream_seq, line
"""
_MESSAGES = """
SELECT count(*) FROM (
    SELECT stream_seq FROM event_rows
        WHERE customer = ?1 AND stream = ?2 AND stream_seq BETWEEN ?3 AND ?4
    UNION
    SELECT stream_seq FROM dead_rows
        WHERE substr(subject, -length(?1) - 1) = '.' || ?1 AND stream_seq BETWEEN ?3 AND ?4)
"""
_SEQUENCES = """
SELECT stream_seq FROM event_rows
    WHERE stream = ?2 AND stream_seq IN (SELECT value FROM json_each(?3))
UNION
SELECT stream_seq FROM dead_rows WHERE substr(subject, -length(?1) - 1) = '.' || ?1
    AND stream_seq IN (SELECT value FROM json_each(?3))
"""
_IDS = """
SELECT DISTINCT id FROM event_rows
WHERE customer = ?1 AND id IN (SELECT value FROM json_each(?2))
"""
_UNRESOLVED = """
SELECT call_id, parent_id, trace_id, customer, key, server, tool, method, charge, at,
    max(ifnull(json_extract(detail, '$.deadline'), 0.0), ifnull((
        SELECT max(json_extract(later.detail, '$.deadline')) FROM event_rows AS later
        WHERE later.call_id = intent.call_id AND later.event = 'call.extended'
            AND later.at >= ?1), 0.0)),
    ifnull(json_extract(detail, '$.reserved'), 0)
FROM event_rows AS intent
WHERE event = 'call.allowed' AND at >= ?1 AND at < ?2
    AND NOT EXISTS (
        SELECT 1 FROM event_rows AS outcome WHERE outcome.call_id = intent.call_id
            AND outcome.event IN ('call.completed', 'call.failed') AND outcome.at >= ?1)
ORDER BY at, call_id LIMIT ?3
"""
_texts = msgspec.json.Decoder(tuple[str, ...]).decode


@dataclass(slots=True)
class _Call:
    """One call with the events about it; `intent` is empty if its intent is missing."""

    intent: tuple[Any, ...] = ()
    deadline: float = 0.0
    unknown_at: float = 0.0
    unknown_charge: int = 0
    is_unknown: bool = False
    outcomes: list[tuple[float, int, bool]] = field(default_factory=list)  # at, charge, counted

    def add(self, row: tuple[Any, ...]) -> None:
        """Add one event of this call, in the order in which the events are stored."""
        event, event_id, at, charge, sent, result = (row[i] for i in (0, 1, 2, 11, 13, 14))
        if event in ("call.allowed", "call.extended"):
            self.deadline = max(self.deadline, row[15])
            if event == "call.allowed":
                self.intent = row
        elif event_id.endswith(".unknown"):
            self.is_unknown = True
            self.unknown_at = max(self.unknown_at, at)
            self.unknown_charge = max(self.unknown_charge, charge)
        else:
            self.outcomes.append((at, charge, bool(sent) and result != "input_required"))

    def charged(self) -> tuple[int, int] | None:
        """Return the number of calls and the charge; None if the call is open.

        The first outcome counts. A charge as unknown is not an outcome, unless no outcome arrived
        within the time for corrections.
        """
        first = min((at for at, _, _ in self.outcomes), default=0.0)
        if self.outcomes and (
            not self.is_unknown or first <= self.unknown_at + CORRECTABLE_SECONDS
        ):
            _, charge, counted = self.outcomes[0]
            return (1, charge) if counted else (0, 0)
        return (1, self.unknown_charge) if self.is_unknown else None


class FileCalls:
    """Recorded calls in an events file."""

    def __init__(self, store: EventsFile) -> None:
        self._store = store

    async def charges(self, query: SpendingQuery) -> list[list[Any]]:
        """Return the charges by key, user, team, server, tool, step, and aliases if requested."""
        sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        for call in await self._calls(query):
            found = call.charged()
            if found is None:
                continue
            step = int(call.intent[2]) // query.step if query.step else 0
            aliases = (" ".join(_texts(call.intent[16])),) if query.aliases else ()
            total = sums[(*call.intent[4:9], step, *aliases)]
            total[0] += found[0]
            total[1] += found[1]
        return [[*names[:6], *total, *names[6:]] for names, total in sums.items()]

    async def oldest(self) -> float:
        """Return the time of the oldest event, or `NO_EVENT`."""
        ((at,),) = await self._store.rows("SELECT min(at) FROM event_rows")
        return float(at) if at is not None else NO_EVENT

    async def messages(self, query: SpendingQuery) -> int:
        """Return how many messages of the customer are stored, as events or as dead letters."""
        values = (query.customer, query.stream, query.first, query.last)
        return int((await self._store.rows(_MESSAGES, values))[0][0])

    async def sequences(self, query: SpendingQuery) -> tuple[int, ...]:
        """Return which of the query's messages are stored."""
        wanted = msgspec.json.encode(query.sequences).decode()
        found = await self._store.rows(_SEQUENCES, (query.customer, query.stream, wanted))
        return tuple(int(number) for (number,) in found)

    async def ids(self, query: SpendingQuery) -> tuple[str, ...]:
        """Return which of the query's events are stored."""
        wanted = msgspec.json.encode(query.ids).decode()
        found = await self._store.rows(_IDS, (query.customer, wanted))
        return tuple(str(event_id) for (event_id,) in found)

    async def open_calls(self, query: OpenCallsQuery) -> list[list[Any]]:
        """Return the calls without an outcome, with the fields of `OpenCall` in order."""
        return [
            [
                row[3], row[9], row[10], *row[4:9], row[11], row[2], call.deadline,
                call.unknown_at, row[12], " ".join(_texts(row[16])),
            ]
            for call in await self._calls(query)
            if (row := call.intent) and not call.outcomes
            and (not call.is_unknown or call.unknown_at >= query.late)
        ]  # fmt: skip

    async def unresolved(self, query: UnresolvedCallsQuery) -> list[UnresolvedCall]:
        """Return the unresolved calls of a period, the oldest first."""
        names = tuple(UnresolvedCall.model_fields)
        values = (query.start, query.end, MAX_UNRESOLVED + 1)
        rows = await self._store.rows(_UNRESOLVED, values)
        return [UnresolvedCall(**dict(zip(names, row, strict=True))) for row in rows]

    async def _calls(self, query: SpendingQuery | OpenCallsQuery) -> list[_Call]:
        """Return the calls that were allowed in the period of the query."""
        calls: dict[str, _Call] = defaultdict(_Call)
        sql = _CALLS.format(methods=CHARGED_METHODS)
        for row in await self._store.rows(sql, (query.customer, query.start, query.end)):
            calls[row[3]].add(row)
        return [call for call in calls.values() if call.intent]
