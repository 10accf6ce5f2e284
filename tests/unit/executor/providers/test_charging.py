"""Charges of model requests."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.contracts.model_calls import Usage
from toolbus_executor.providers.charging import charge_of_usage, savings_of_cache

COUNTS = st.integers(0, 10_000_000)
PRICES = st.tuples(*[st.floats(0, 1000, allow_subnormal=False)] * 6)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Return a usage whose parts do not exceed their sums."""
    cached, written, plain, reasoning, output = (draw(COUNTS) for _ in range(5))
    total = plain + cached + written
    return Usage(total, cached, written, output + reasoning, reasoning)


@given(usages(), PRICES)
def test_each_token_is_charged_once_with_the_price_of_its_kind(
    usage: Usage, price: tuple[float, ...]
) -> None:
    plain = usage.input - usage.cached - usage.cache_write
    counts = plain, usage.cached, usage.cache_write, usage.output - usage.reasoning, usage.reasoning
    exact = sum(count * each for count, each in zip((*counts, 1), price, strict=True))
    charge = charge_of_usage(usage, price)
    assert charge >= 0
    assert abs(charge - ceil(exact)) <= 1 + exact * 1e-9


@given(usages(), usages(), PRICES)
def test_more_tokens_never_cost_less(one: Usage, other: Usage, price: tuple[float, ...]) -> None:
    both = Usage(
        one.input + other.input,
        one.cached + other.cached,
        one.cache_write + other.cache_write,
        one.output + other.output,
        one.reasoning + other.reasoning,
    )
    assert charge_of_usage(both, price) >= charge_of_usage(one, price) - 1


def test_a_charge_is_rounded_up_once() -> None:
    assert charge_of_usage(Usage(3, output=3), (0.1, 0, 0, 0.1, 0, 0)) == 1
    assert charge_of_usage(Usage(1_000_000), (0.15, 0, 0, 0, 0, 0)) == 150_000
    assert charge_of_usage(Usage(0), (1, 1, 1, 1, 1, 0.5)) == 1


def test_a_cache_of_one_hour_has_the_price_of_its_own() -> None:
    usage = Usage(input=100, cached=10, cache_write=60, cache_write_1h=40)
    assert charge_of_usage(usage, (3.0, 0.3, 3.75, 15.0, 15.0, 0.0, 6.0)) == 408
    assert charge_of_usage(usage, (3.0, 0.3, 3.75, 15.0, 15.0, 0.0)) == 318


def test_audio_and_images_have_the_prices_of_their_own() -> None:
    usage = Usage(100, 10, output=50, audio_input=40, image_input=20, audio_output=30)
    price = (1.0, 0.5, 1.0, 2.0, 2.0, 0.0)
    assert charge_of_usage(usage, price) == 90 + 5 + 100
    media = (*price, 1.0, 10.0, 5.0, 20.0)
    assert charge_of_usage(usage, media) == 30 + 5 + 400 + 100 + 40 + 600


def test_a_model_without_a_price_is_free() -> None:
    assert charge_of_usage(Usage(1000, output=1000), ()) == 0


def test_contradictory_usage_never_becomes_a_credit() -> None:
    usage = Usage(input=5, cached=10**7, cache_write=10**7, output=0)
    assert charge_of_usage(usage, (3.0, 0.3, 0.0, 15.0, 15.0, 0.0)) == 0


def test_cached_input_saves_the_difference_of_the_prices() -> None:
    usage = Usage(input=1000, cached=400, output=7)
    assert savings_of_cache(usage, (3.0, 0.3, 0.0, 15.0, 15.0, 0.0)) == 1080
    assert savings_of_cache(usage, (1.0, 2.0, 0.0, 0.0, 0.0, 0.0)) == 0
    assert savings_of_cache(usage, ()) == 0
