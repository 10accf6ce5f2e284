"""Paged exports of events: complete, each event once, with pages of any size."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from harness.audit.events import allowed, completed
from harness.audit.exports import Table, opened
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.export import pages as paging
from toolbus_common.contracts import EventsQuery
from toolbus_common.errors import InvalidError

EIGHT = 1_763_712_000.0  # on the 21st of November 2025


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with opened(tmp_path_factory.mktemp("audit")) as store:
        yield store


async def read_pages(engine: ClickHouse, **query: Any) -> tuple[list[str], list[int], int]:
    """Return the ids of all pages, the number of rows of each, and the announced total."""
    ids: list[str] = []
    sizes: list[int] = []
    total, after = 0, ""
    while True:
        page = await paging.page(engine, EventsQuery(**query, after=after))
        total = max(total, page.total)
        ids += [json.loads(line)["id"] for line in page.data.splitlines()]
        sizes.append(page.rows)
        if not page.next:
            return ids, sizes, total
        after = page.next


async def test_every_event_is_exported_once_by_time_with_small_pages(
    engine: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "MAX_ROWS", 3)
    at = Table(engine)
    for number in range(20):  # some at the same moment, over four hours, the last ones first
        moment = EIGHT + 3600 * ((19 - number) // 5) + (number % 2)
        await at.keep(allowed(call_id=f"p{number:02}", customer="pages", at=moment))
    ids, sizes, total = await read_pages(engine, customers=("pages",))
    assert sorted(ids) == sorted(at.ids)
    assert (max(sizes), total) == (3, 20)
    moments = {f"p{n:02}.allowed": EIGHT + 3600 * ((19 - n) // 5) + (n % 2) for n in range(20)}
    assert all(moments[one] <= moments[other] for one, other in pairwise(ids))


async def test_only_selected_events_are_exported(engine: ClickHouse) -> None:
    at = Table(engine)
    await at.keep(
        allowed(call_id="a1", customer="selected", at=EIGHT),
        completed(call_id="a1", customer="selected", at=EIGHT),
        allowed(call_id="a2", customer="selected", at=EIGHT + 1), allowed(call_id="a3", at=EIGHT),
        allowed(call_id="a4", customer="selected", at=EIGHT + 2),
    )  # fmt: skip
    request = {
        "customers": ("selected",),
        "events": ("call.all*",),
        "since": EIGHT,
        "until": EIGHT + 2,
    }
    assert (await read_pages(engine, **request))[0] == ["a1.allowed", "a2.allowed"]
    assert (await read_pages(engine, customers=("nobody' OR '1",)))[0] == []


async def test_pages_stay_below_the_limit_of_the_bus(
    engine: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "MAX_BYTES", 4000)
    monkeypatch.setattr(paging, "_FIRST", {"jsonl": 16_000})
    at = Table(engine)
    for number in range(8):
        await at.keep(
            allowed(call_id=f"l{number}", customer="long", at=EIGHT, arguments="x" * 1400)
        )
    ids, sizes, _ = await read_pages(engine, customers=("long",))
    assert (sorted(ids), max(sizes)) == (at.ids, 2)
    monkeypatch.setattr(paging, "MAX_BYTES", 1000)
    with pytest.raises(InvalidError, match=r"l0.allowed is longer"):
        await read_pages(engine, customers=("long",))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"format": "csv"}, "Unknown format 'csv'"),
        ({"events": ("call%",)}, "is not an event name"),
        ({"after": "nonsense"}, "is not a cursor"),
    ],
)
async def test_an_invalid_query_is_rejected_with_its_fix(
    engine: ClickHouse, query: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidError, match=reason):
        await paging.page(engine, EventsQuery(**query))
