"""Counting rejected requests: bounded memory, and every request is counted."""

import asyncio
from functools import partial
from ipaddress import IPv4Address

import pytest

from harness.waits import until
from toolbus_common.contracts import AccessRejected, Event
from toolbus_common.messaging.access_rejections import MAX_KINDS, RejectionCounter
from toolbus_common.observability.metrics import REJECTED_ACCESS


class Published(list[Event]):
    """Keeps the published events of rejected access."""

    @property
    def events(self) -> list[AccessRejected]:
        return [each for each in self if isinstance(each, AccessRejected)]


@pytest.fixture
def published() -> Published:
    return Published()


def test_requests_of_one_address_and_reason_are_counted_in_one_event(
    published: Published,
) -> None:
    rejections = RejectionCounter(published.append)
    for _ in range(1000):
        rejections.note("mcp", "unauthorized", "203.0.113.9")
    rejections.note("mcp", "no_credential", "203.0.113.9")
    rejections.note("admin", "unauthorized", "203.0.113.9")
    assert not published
    rejections.publisher.flush()
    counts = {(each.entrance, each.code, each.address): each.count for each in published.events}
    assert counts == {
        ("mcp", "unauthorized", "203.0.113.9"): 1000,
        ("mcp", "no_credential", "203.0.113.9"): 1,
        ("admin", "unauthorized", "203.0.113.9"): 1,
    }
    assert "1000 times at mcp from 203.0.113.9" in published.events[0].reason
    rejections.publisher.flush()
    assert len(published) == len(counts)


def test_a_flood_from_many_addresses_is_counted_in_a_bounded_number_of_events(
    published: Published,
) -> None:
    rejections, many = RejectionCounter(published.append), 20_000
    before = REJECTED_ACCESS.labels("mcp", "unauthorized")._value.get()
    for number in range(many):
        rejections.note("mcp", "unauthorized", str(IPv4Address((10 << 24) + number)))
    assert len(rejections._counted) <= MAX_KINDS + 1
    rejections.publisher.flush()
    assert len(published) == MAX_KINDS + 1
    assert sum(each.count for each in published.events) == many
    (rest,) = (each for each in published.events if not each.address)
    assert rest.count == many - MAX_KINDS
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
def test_a_client_is_identified_by_its_network(
    published: Published, address: str, shown: str
) -> None:
    rejections = RejectionCounter(published.append)
    rejections.note("mcp", "unauthorized", address)
    rejections.publisher.flush()
    assert [each.address for each in published.events] == [shown]


async def test_counts_are_published_at_the_end_of_each_period(published: Published) -> None:
    rejections = RejectionCounter(published.append, seconds=0.01)
    async with rejections.publisher.running():
        for period in (1, 2):
            rejections.note("mcp", "unauthorized", f"192.0.2.{period}")
            await until(partial(lambda wanted: len(published) == wanted, period))
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
