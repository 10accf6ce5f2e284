"""Index of cached responses: limits, purges, contexts."""

from typing import Any

import pytest

from toolbus_common.config.models.response_cache import LONGEST_TTL
from toolbus_common.nats.kv_bucket import Change
from toolbus_executor.providers.cache import index as module
from toolbus_executor.providers.cache.index import Index
from toolbus_executor.providers.cache.records import Entry, Purge, encode, entry_id


def entry(**given: Any) -> Entry:
    """Return a description. `given` overrides its fields."""
    fields: dict[str, Any] = {
        "customer": "acme", "provider": "p", "model": "m", "key": "bot", "owner": "~", "at": 1.0,
        "size": 10, "seen": 0,
    }  # fmt: skip
    return Entry(**fields | given)


def filled(**entries: Entry) -> Index:
    """Return an index with these entries; the first one has revision 1."""
    index = Index(lambda: 1.0)
    for revision, (name, each) in enumerate(entries.items(), 1):
        index.apply(Change(f"e.acme.{name}", encode(each), revision))
    return index


def purge(index: Index, revision: int, **selected: str) -> None:
    """Apply a purge with this revision."""
    made = Purge(**selected)
    index.apply(Change(made.name, encode(made), revision))


def test_the_oldest_entries_are_removed_until_the_new_one_fits() -> None:
    index = filled(a=entry(), b=entry(), c=entry(provider="q"))
    group = "acme", "p"
    assert index.excess(group, 10, 3, 100) == []
    assert index.excess(group, 10, 2, 100) == ["e.acme.a"]
    assert index.excess(group, 95, 3, 100) == ["e.acme.a", "e.acme.b"]
    assert index.excess(("other", "p"), 10, 1, 1) == []
    assert index.excess(group, 10, 3, 100, oldest=1.5) == ["e.acme.a", "e.acme.b"]
    assert index.totals() == {("acme", "p"): (2, 20), ("acme", "q"): (1, 10)}


def test_a_replaced_or_deleted_entry_does_not_count_twice() -> None:
    index = filled(a=entry(), b=entry(context=b"c"))
    index.apply(Change("e.acme.a", encode(entry(size=30)), 3))
    assert index.totals() == {("acme", "p"): (2, 40)}
    assert index.similar(b"c", 2) == ("e.acme.b",)
    index.apply(Change("e.acme.b", None, 4))
    assert index.similar(b"c", 2) == ()
    index.apply(Change("e.acme.a", None, 5))
    assert (len(index), index.totals()) == (0, {})


def test_a_purge_removes_what_all_its_fields_select() -> None:
    index = filled(
        a=entry(key="one"), b=entry(key="two"), c=entry(model="n"), d=entry(provider="q")
    )
    purge(index, 5, key="one")
    purge(index, 6, provider="p", model="n")
    assert {entry_id(name) for name, _ in index.items()} == {"b", "d"}
    purge(index, 7, entry="b")
    purge(index, 8, customer="other")
    assert [entry_id(name) for name, _ in index.items()] == ["d"]
    purge(index, 9)
    assert len(index) == 0


def test_a_response_that_was_requested_before_a_purge_is_ignored() -> None:
    index = filled(a=entry())
    purge(index, 2, provider="p")
    index.apply(Change("e.acme.late", encode(entry(seen=1)), 3))
    assert len(index) == 0
    index.apply(Change("e.acme.new", encode(entry(seen=2)), 4))
    index.add("e.acme.other", entry(seen=1, provider="q"))
    assert {entry_id(name) for name, _ in index.items()} == {"new", "other"}


def test_unreadable_and_unknown_entries_are_ignored() -> None:
    index = filled(a=entry())
    for key, value in (("e.acme.b", b"\xc1"), ("p.x", b"\xc1"), ("x.y", b""), ("p.x", None)):
        index.apply(Change(key, value, 9))
    assert (len(index), index.revision) == (1, 9)


def test_of_many_similar_entries_only_the_newest_are_compared() -> None:
    index = filled(**{name: entry(context=b"c") for name in "abcd"})
    assert index.similar(b"c", 2) == ("e.acme.d", "e.acme.c")


def test_entries_and_purges_are_removed_after_the_longest_lifetime() -> None:
    now = 1.0
    index = Index(lambda: now)
    for revision, name in enumerate("abc", 1):
        index.apply(Change(f"e.acme.{name}", encode(entry(at=now)), revision))
    purge(index, 4, customer="other")
    assert index.is_purged("e.other.x", entry(customer="other", seen=1))
    now += LONGEST_TTL
    index.apply(Change("e.acme.new", encode(entry(at=now)), 5))
    assert [name for name, _ in index.items()] == ["e.acme.new"]
    assert not index.is_purged("e.other.x", entry(customer="other", seen=1))


def test_all_customers_together_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    monkeypatch.setattr(module, "MAX_SEALED", 30)
    index = filled(a=entry(), b=entry(), c=entry(customer="other"))
    assert [entry_id(name) for name, _ in index.items()] == ["b", "c"]
    index.add("e.acme.d", entry(sealed=b"x" * 20))
    index.add("e.acme.e", entry(sealed=b"x" * 20))
    assert [entry_id(name) for name, _ in index.items()] == ["e"]


def test_above_the_limit_of_purges_older_requests_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_PURGES", 1)
    index = Index()
    purge(index, 5, key="one")
    purge(index, 6, key="two")
    assert index.is_purged("e.acme.a", entry(key="one", seen=4))
    assert not index.is_purged("e.acme.a", entry(key="one", seen=5))
    assert index.is_purged("e.acme.a", entry(key="two", seen=5))


def test_a_purge_that_arrives_late_is_applied_too() -> None:
    index = filled(a=entry())
    assert index.purge(9, Purge(key="two")) == []
    purge(index, 8, key="bot")
    assert index.is_purged("e.acme.b", entry(key="two", seen=8))
    assert index.is_purged("e.acme.b", entry(key="bot", seen=7))
    assert not index.is_purged("e.acme.b", entry(key="bot", seen=8))
