"""Traffic of a period: sums, bars, and the comparison with the period before."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolbus_ingress.console.operation.traffic import PERIODS, change_of, traffic_of, trends_of
from toolbus_policy.admin.records.event_queries import AT_ONCE

DAY = PERIODS["day"]
END = 1_795_600_800  # the end of an hour


def row(calls: int, *, failed: int = 0, dollars: float = 0.0) -> dict[str, Any]:
    """Return the row of one step."""
    return {"calls": calls, "failed": failed, "dollars": dollars, "latency_ms": [1.0, 2.0, 3, 4]}


def test_sums_include_the_step_that_is_not_over_and_the_comparison_leaves_it_out() -> None:
    found = {
        END - 3600: row(100, failed=4, dollars=1.5),  # not over
        END - 7200: row(30, failed=1, dollars=0.5),
        END - 7200 - DAY.length: row(20, failed=2),
        END - 3600 - DAY.length: row(1000),  # its counterpart is not over
    }
    calls, failed, spending, latency = trends_of(DAY, END, found, {True: [1, 2, 30, 4000.5]})
    assert (calls.total, calls.note, calls.change) == ("130", "5.4 per hour", "+50 %")
    assert (failed.total, failed.note, failed.change) == ("5", "3.8% of the calls", "-50 %")
    assert (spending.total, spending.note, spending.change) == (
        "$2.00", "$15.38 per 1,000 calls", "",
    )  # fmt: skip
    assert (latency.total, latency.note) == ("30 ms", "p50 1, p99 4,000 ms")
    assert [bar.percent for bar in calls.bars] == [0] * 22 + [30, 100]
    assert calls.bars[-1].text == "100"
    assert latency.bars[-1].text == "p50 1 ms, p95 3 ms, p99 4 ms"


@pytest.mark.parametrize("name", PERIODS)
def test_a_period_without_calls_has_bars_of_nothing(name: str) -> None:
    period = PERIODS[name]
    for trend in trends_of(period, END, {}, {}):
        assert (len(trend.bars), {bar.percent for bar in trend.bars}) == (period.bars, {0})
        assert trend.change == ""


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [(3, 2, "+50 %"), (2, 2, "+0 %"), (0, 5, "-100 %"), (5, 0, ""), (30_000, 1, "+2,999,900 %")],
)
def test_a_change_is_a_percentage_of_what_was_before(now: float, before: float, text: str) -> None:
    assert change_of(now, before) == text


def test_the_queries_of_the_overview_never_exceed_the_limit_of_policy() -> None:
    running: list[int] = [0]
    sums = ["tokens", "classic", "hits", "dollars"]

    async def send(_method: str, _path: str, body: dict[str, Any]) -> Any:
        running.append(running[-1] + 1)
        await asyncio.sleep(0)
        running.append(running[-1] - 1)
        is_list = "GROUP BY" in body["sql"]
        data = {"columns": sums, "rows": [] if is_list else [[0] * len(sums)], "more": False}
        return SimpleNamespace(data=data)

    visitor = cast("Any", SimpleNamespace(api=SimpleNamespace(send=send)))
    asyncio.run(traffic_of(visitor, "day"))
    assert len(running) == 9
    assert max(running) <= AT_ONCE
