"""Administrators' replays of recorded calls with proposed rules, before the rules apply."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from time import monotonic, time
from typing import Any

from toolbus_common import rules as cedar
from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.installation_models import RuleReplay
from toolbus_common.config import Configuration, Rule
from toolbus_common.config_store.loading import rules as loading
from toolbus_common.config_store.loading.document import Document
from toolbus_common.config_store.redacted_view import configuration_error
from toolbus_common.contracts import AdminReply, AdminRequest, AuditQuery, RowsReply
from toolbus_common.errors import InvalidError
from toolbus_common.rules import MOST_PROBLEMS
from toolbus_common.rules.replay import CALLS, Replay, recorded
from toolbus_policy.admin.records.erasures import ErasureOperations
from toolbus_policy.admin.records.event_queries import SECONDS, json_reply
from toolbus_policy.admin.request_parser import parse_body, problem_as_json

EXAMPLES = 20
BATCH = 500  # rows of one query
LEAST_ROWS = 16  # rows whose arguments fit into one reply, even if they are long
REPLAY_SECONDS = 12.0  # less than ingress waits, with the last query


@dataclass(frozen=True, slots=True)
class ReplayOperations(ErasureOperations):
    """The operation that replays recorded calls."""

    async def show_rule_replay(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Return what proposed rules would change for the newest recorded calls.

        Raises:
            InvalidConfigurationError: a rule is not valid, or one to remove is not configured.
            OverloadedError: too many queries of events are running.

        """
        chosen: RuleReplay = parse_body(RuleReplay, request.body)
        now = await self.repository_for(administrator.by).declared()
        rules = {name: rule for name, rule in chosen.rules.items() if rule is not None}
        removed = chosen.rules.keys() - rules.keys()
        declared, end = now.configuration.rules, monotonic() + REPLAY_SECONDS
        others = {name: declared[name] for name in declared if name not in chosen.rules}
        async with self._queried("since"):  # also limits the processor time of checks
            await asyncio.to_thread(_check, rules, removed - declared.keys(), end)
            replay = await asyncio.to_thread(Replay, rules, others, removed, EXAMPLES)
            complete = await self._replayed(replay, chosen, now.configuration, end)
        warnings = await asyncio.to_thread(_warnings, rules, now.configuration)
        return json_reply(
            {
                **replay.report.as_data,
                "complete": complete,
                "since": time() - chosen.seconds,
                "warnings": warnings,
                "revision": now.revision,
            }
        )

    async def _replayed(
        self, replay: Replay, chosen: RuleReplay, declared: Configuration, end: float
    ) -> bool:
        """Add the newest calls to a replay; return whether these are all calls of the period."""
        count = 0
        async for rows, more in self._recorded(chosen.seconds, chosen.calls):
            count += len(rows)
            added = await asyncio.to_thread(_add, replay, rows, declared, end)
            if added < len(rows) or monotonic() > end or count >= chosen.calls:
                return added == len(rows) and not more
        return True

    async def _recorded(
        self, seconds: int, most: int
    ) -> AsyncIterator[tuple[list[dict[str, Any]], bool]]:
        """Yield pages of decisions that rules could change, the newest first.

        With each page, yield whether further decisions exist.
        """
        before, batch, left = "", BATCH, most
        while True:
            order = f"{before} ORDER BY stream_seq DESC, line DESC"
            query = AuditQuery(sql=CALLS.format(seconds=seconds) + order, limit=min(batch, left))
            try:
                found = await self.requests.request(query, RowsReply, SECONDS)
            except InvalidError:
                if batch <= LEAST_ROWS:
                    raise
                batch //= 4  # arguments can be long
                continue
            rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
            left -= len(rows)
            yield rows, found.more
            if not found.more or left <= 0:
                return
            before = f"AND (stream_seq, line) < ({rows[-1]['stream_seq']}, {rows[-1]['line']})"


def _check(rules: Mapping[str, Rule], unknown: Collection[str], end: float) -> None:
    """Raise `InvalidConfigurationError` with the errors of the rules."""
    found = [
        {"location": f"rules.{name}.cedar", "line": 0, "reason": message}
        for name, message in islice(_mistakes(rules, end), MOST_PROBLEMS)
    ]
    found += [
        {"location": f"rules.{name}", "line": 0, "reason": "is not configured; omit it"}
        for name in sorted(unknown)
    ]
    if found:
        raise configuration_error(found)


def _mistakes(rules: Mapping[str, Rule], end: float) -> Iterator[tuple[str, str]]:
    """Yield the errors of each rule with its name; a rule that is not checked by `end` has one."""
    for number, (name, rule) in enumerate(rules.items()):
        if number and monotonic() > end:
            yield name, "was not checked: the rules are too long; replay fewer of them at once"
            return
        for message in cedar.problems(rule.cedar):
            yield name, message


def _add(replay: Replay, rows: list[dict[str, Any]], declared: Configuration, end: float) -> int:
    """Add calls to a replay until the time `end`; return the number of added calls."""
    for number, row in enumerate(rows):
        if number and monotonic() > end:  # rules can be long, and each call can need other ones
            return number
        replay.add(recorded(row, declared))
    return len(rows)


def _warnings(rules: Mapping[str, Rule], declared: Configuration) -> list[dict[str, Any]]:
    written = {name: {"cedar": rule.cedar} for name, rule in rules.items()}
    document = Document(data={"rules": written})
    return [problem_as_json(each) for each in loading.warnings(document, declared)]
