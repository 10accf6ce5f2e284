"""Index of cached responses: limits, purges, contexts."""

from typing import Any

from toolbus_common.nats.kv_bucket import Change
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
    index = Index()
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
    assert index.similar(b"c") == ("e.acme.b",)
    index.apply(Change("e.acme.b", None, 4))
    assert index.similar(b"c") == ()
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
