"""Rejected requests, counted: bounded whoever comes, and nothing of it lost."""

import asyncio
from functools import partial
from ipaddress import IPv4Address

import pytest

from harness.waiting import until
from toolbus_common.contracts import AccessRejected, Event
from toolbus_common.messaging.access_rejections import MOST_APART, RejectionCounter
from toolbus_common.observability.metrics import REJECTED_ACCESS


class Told(list[Event]):
    """What was said, as rejected access."""

    @property
    def events(self) -> list[AccessRejected]:
        return [each for each in self if isinstance(each, AccessRejected)]


@pytest.fixture
def told() -> Told:
    return Told()


def test_requests_of_one_address_and_reason_are_one_event_with_their_count(told: Told) -> None:
    rejections = RejectionCounter(told.append)
    for _ in range(1000):
        rejections.note("mcp", "unauthorized", "203.0.113.9")
    rejections.note("mcp", "no_credential", "203.0.113.9")
    rejections.note("admin", "unauthorized", "203.0.113.9")
    assert not told
    rejections.flush()
    counts = {(each.entrance, each.code, each.address): each.count for each in told.events}
    assert counts == {
        ("mcp", "unauthorized", "203.0.113.9"): 1000,
        ("mcp", "no_credential", "203.0.113.9"): 1,
        ("admin", "unauthorized", "203.0.113.9"): 1,
    }
    assert "1000 times at mcp from 203.0.113.9" in told.events[0].reason
    rejections.flush()
    assert len(told) == len(counts)


def test_a_flood_from_many_addresses_is_a_bounded_number_of_events_and_all_is_counted(
    told: Told,
) -> None:
    rejections, many = RejectionCounter(told.append), 20_000
    before = REJECTED_ACCESS.labels("mcp", "unauthorized")._value.get()
    for number in range(many):
        rejections.note("mcp", "unauthorized", str(IPv4Address((10 << 24) + number)))
    assert len(rejections._counted) <= MOST_APART + 1
    rejections.flush()
    assert len(told) == MOST_APART + 1
    assert sum(each.count for each in told.events) == many
    (rest,) = (each for each in told.events if not each.address)
    assert rest.count == many - MOST_APART
    assert REJECTED_ACCESS.labels("mcp", "unauthorized")._value.get() == before + many


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("<script>", ""),
    ],
)
def test_a_client_is_told_apart_by_what_it_cannot_choose(
    told: Told, address: str, shown: str
) -> None:
    rejections = RejectionCounter(told.append)
    rejections.note("mcp", "unauthorized", address)
    rejections.flush()
    assert [each.address for each in told.events] == [shown]


async def test_what_was_counted_is_written_at_the_end_of_each_period(told: Told) -> None:
    rejections = RejectionCounter(told.append, seconds=0.01)
    async with rejections.written():
        for period in (1, 2):
            rejections.note("mcp", "unauthorized", f"192.0.2.{period}")
            await until(partial(lambda wanted: len(told) == wanted, period))
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
