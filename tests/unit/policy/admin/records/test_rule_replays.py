"""Replay of recorded calls: pages of queries, their size, and the limits on calls and time."""

import asyncio
import json
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolbus_common.access.administrators import Administrator
from toolbus_common.config import Configuration
from toolbus_common.contracts import AdminRequest, AuditQuery, RowsReply
from toolbus_common.errors import InvalidConfigurationError, InvalidError
from toolbus_common.rules import MOST_PROBLEMS
from toolbus_policy.admin.records import rule_replays
from toolbus_policy.admin.records.rule_replays import BATCH, LEAST_ROWS, ReplayOperations

ANN = Administrator("ann", "ann", "admin")
PROD = 'forbid(principal, action, resource) when { principal.environment == "prod" };'
ROW: dict[str, Any] = {
    "stream_seq": 0, "line": 0, "seconds": 1_800_000_000.0, "call_id": "c", "customer": "default",
    "team": "", "user": "", "environment": "prod", "key": "bot", "server": "docs", "tool": "read",
    "method": "tools/call", "family": "modern", "charge": 0, "code": "", "rule": "",
    "arguments": "", "event": "call.allowed",
}  # fmt: skip


class Events:
    """Audit with some calls, two in each message of the stream, that replies with `fits` rows."""

    def __init__(self, count: int, fits: int = BATCH) -> None:
        self.rows = [
            {**ROW, "stream_seq": number // 2, "line": number % 2, "call_id": f"c{number}"}
            for number in reversed(range(count))
        ]
        self.fits = fits
        self.limits: list[int] = []

    async def request(self, query: AuditQuery, _kind: Any, _seconds: float) -> RowsReply:
        """Return the rows before the last one of the earlier page."""
        self.limits.append(query.limit)
        if query.limit > self.fits:
            raise InvalidError("the reply would be too large")
        place = re.search(r"AND \(stream_seq, line\) < \((\d+), (\d+)\)", query.sql)
        before = (int(place[1]), int(place[2])) if place else (len(self.rows), 0)
        found = [row for row in self.rows if (row["stream_seq"], row["line"]) < before]
        rows = tuple(tuple(row.values()) for row in found[: query.limit])
        return RowsReply(columns=tuple(ROW), rows=rows, more=len(found) > query.limit)


def replayed(events: Events, **body: Any) -> dict[str, Any]:
    async def declared() -> Any:
        return SimpleNamespace(configuration=Configuration(), revision=7)

    repository = SimpleNamespace(declared=declared)
    operations = ReplayOperations(
        requests=cast("Any", events),
        bus=cast("Any", None),
        repository_for=lambda _by: cast("Any", repository),
        people=cast("Any", None),
    )
    content = json.dumps({"rules": {"prod": {"cedar": PROD}}, **body}).encode()
    request = AdminRequest(key_digest="", operation="show_rule_replay", body=content)
    answer: dict[str, Any] = json.loads(asyncio.run(operations.show_rule_replay(request, ANN)).body)
    return answer


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1, 2 * BATCH + 3])
def test_every_call_is_replayed_once_over_several_pages(count: int) -> None:
    report = replayed(Events(count))
    assert (report["calls"], report["refused"], report["complete"]) == (count, count, True)


@pytest.mark.parametrize(("most", "complete"), [(600, False), (1202, False), (1203, True)])
def test_no_more_calls_are_replayed_than_requested_and_the_newest(
    *, most: int, complete: bool
) -> None:
    events = Events(1203)
    report = replayed(events, calls=most)
    assert (report["calls"], report["complete"]) == (most, complete)
    assert report["examples"]["refused"][0]["call_id"] == "c1202"
    assert sum(events.limits) == most


def test_pages_become_smaller_until_their_arguments_fit() -> None:
    events = Events(40, fits=LEAST_ROWS * 2)
    assert replayed(events)["calls"] == 40
    assert events.limits[:3] == [BATCH, BATCH // 4, BATCH // 16]


def test_a_query_that_fails_at_the_smallest_page_is_an_error() -> None:
    events = Events(40, fits=0)
    with pytest.raises(InvalidError):
        replayed(events)
    assert events.limits[-1] <= LEAST_ROWS


def test_a_replay_ends_after_its_time_with_the_newest_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rule_replays, "REPLAY_SECONDS", -1.0)
    report = replayed(Events(BATCH + 1))
    assert (report["calls"], report["complete"]) == (1, False)
    assert report["examples"]["refused"][0]["call_id"] == f"c{BATCH}"
    assert replayed(Events(1))["complete"]


def test_the_checks_of_many_rules_end_after_the_time_of_a_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rule_replays, "REPLAY_SECONDS", -1.0)
    events = Events(1)
    with pytest.raises(InvalidConfigurationError) as refused:
        replayed(events, rules={"one": {"cedar": PROD}, "two": {"cedar": PROD}})
    errors = refused.value.data["errors"]
    assert [each["location"] for each in errors] == ["rules.two.cedar"]
    assert not events.limits


def test_a_replay_reports_a_limited_number_of_mistakes() -> None:
    wrong = {f"r{number}": {"cedar": ";\n" * 30} for number in range(9)}
    with pytest.raises(InvalidConfigurationError) as refused:
        replayed(Events(1), rules=wrong)
    assert len(refused.value.data["errors"]) == MOST_PROBLEMS
