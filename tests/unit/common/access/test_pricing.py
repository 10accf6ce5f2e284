"""What a call costs: the exact name or the longest pattern, by result, never over what was held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.access.pricing import Cost, charged, cost_of
from toolbus_common.config import Price

BY_RESULT = Price(call=0.001, kilobyte=0.0005, token=0.000003, maximum=0.05)


def test_the_star_is_the_default_price() -> None:
    prices = {"*": 0.01, "docs__*": 0.02, "docs__search": 0.03}
    found = [cost_of(name, prices).reserved for name in ("mail__send", "docs__get", "docs__search")]
    assert found == [10_000, 20_000, 30_000]


def test_the_reservation_is_the_maximum_or_the_price_of_the_call() -> None:
    assert cost_of("a__b", {"*": Price(call=0.01)}) == Cost(10_000)
    assert cost_of("a__b", {"*": BY_RESULT}).reserved == 50_000


def test_a_call_is_charged_by_the_size_of_its_result() -> None:
    cost = cost_of("a__b", {"*": BY_RESULT})
    assert charged(cost.reserved, cost.parts, 4000) == 1000 + 4 * 500 + 1000 * 3


def test_a_flat_price_ignores_the_result() -> None:
    assert charged(7, (), 10**9) == 7


def test_a_maximum_is_reserved_and_the_actual_price_charged() -> None:
    cost = cost_of("a__b", {"*": Price(call=0.01, maximum=0.02)})
    assert (cost.reserved, charged(cost.reserved, cost.parts, 10)) == (20_000, 10_000)


@pytest.mark.parametrize("size", [0, 1])
def test_a_fraction_of_a_micro_dollar_rounds_up(size: int) -> None:
    assert charged(100, (0.0, 0.1, 0.0), size) == size


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.floats(0, 10), st.floats(0, 10))
def test_the_price_is_monotonic_and_at_most_the_reservation(
    size: int, held: int, kilobyte: float, token: float
) -> None:
    parts = (0.0, kilobyte, token)
    assert 0 <= charged(held, parts, size // 2) <= charged(held, parts, size) <= held
