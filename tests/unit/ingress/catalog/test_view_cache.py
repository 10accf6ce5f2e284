"""Limits of the cache of what callers see of the catalogue."""

from toolbus_ingress.catalog.view_cache import MAX_BYTES, MAX_ENTRIES, ViewCache


def test_a_client_that_restricts_each_request_differently_does_not_fill_the_memory() -> None:
    cache = ViewCache[int]()
    for number in range(3 * MAX_ENTRIES):
        cache.put(number, number)
        assert cache.get(number) == number
    assert sum(cache.get(number) is not None for number in range(3 * MAX_ENTRIES)) <= MAX_ENTRIES


def test_large_values_are_limited_by_their_size() -> None:
    cache = ViewCache[str]()
    for name in ("first", "second", "third"):
        cache.put(name, name, MAX_BYTES)
    assert [cache.get(each) for each in ("first", "second", "third")] == [None, None, "third"]
