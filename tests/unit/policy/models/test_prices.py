"""Prices of models: the configuration first, then the bundled table at the provider's address."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.config import Configuration, ModelPrice, Provider
from toolbus_policy.models.prices import bundled_price, micro_dollars_of, price_of

VERTEX = {"kind": "vertex", "project": "p-1", "ambient": True}
BEDROCK = {"kind": "bedrock", "region": "eu-central-1", "ambient": True}
LOCAL = {"kind": "openai", "url": "http://127.0.0.1:8081/v1"}


def declared(
    provider: dict[str, Any], prices: dict[str, dict[str, float]] | None = None
) -> Configuration:
    fields = {"providers": {"local": provider}, "model_prices": prices or {}}
    return Configuration.model_validate(fields)


def test_the_exact_name_wins_over_a_longer_pattern() -> None:
    prices = {"local/gemma-270m*": {"input": 1.0}, "local/gemma-270m": {"input": 2.0}}
    assert price_of(declared(LOCAL, prices), "local", "gemma-270m") == ModelPrice(input=2)


def test_the_longest_pattern_wins() -> None:
    prices = {"*": {"input": 1.0}, "local/*": {"input": 2.0}, "*/gemma": {"input": 3.0}}
    assert price_of(declared(LOCAL, prices), "local", "gemma-270m") == ModelPrice(input=2)
    assert price_of(declared(LOCAL, prices), "local", "gemma") in (
        ModelPrice(input=2),
        ModelPrice(input=3),
    )


def test_a_model_without_a_price_has_none_unless_its_provider_is_unpriced() -> None:
    assert price_of(declared(LOCAL), "local", "gemma-270m") is None
    free = price_of(declared({**LOCAL, "unpriced": True}), "local", "gemma-270m")
    assert free is not None
    assert micro_dollars_of(free) == ()


def test_a_declared_price_applies_to_an_unpriced_provider() -> None:
    prices = {"local/gemma": {"input": 2.0}}
    configuration = declared({**LOCAL, "unpriced": True}, prices)
    assert price_of(configuration, "local", "gemma") == ModelPrice(input=2)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ({"kind": "openai"}, "gpt-4o"),
        ({"kind": "anthropic"}, "claude-haiku-4-5"),
        ({"kind": "gemini", "key": "k"}, "gemini-2.5-flash"),
        ({**VERTEX, "location": "global"}, "gemini-2.5-flash"),
        ({**VERTEX, "location": "europe-west1"}, "gemini-2.5-pro"),
        ({**VERTEX, "location": "eu"}, "claude-haiku-4-5@20251001"),
        (BEDROCK, "amazon.nova-lite-v1:0"),
        (BEDROCK, "eu.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ({"kind": "openai", "url": "https://api.mistral.ai/v1"}, "codestral-latest"),
        ({"kind": "openai", "url": "https://api.groq.com/openai/v1"}, "openai/gpt-oss-120b"),
        ({"kind": "openai", "url": "https://api.deepseek.com"}, "deepseek-chat"),
        (
            {"kind": "openai", "url": "https://generativelanguage.googleapis.com/v1beta/openai"},
            "gemini-2.5-flash",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_common_model_has_a_bundled_price_at_its_own_address(
    provider: dict[str, Any], model: str
) -> None:
    found = bundled_price(Provider.model_validate(provider), model)
    assert found is not None
    assert 0 < found.input <= found.output


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "http://api.openai.com/v1",
        "https://api.openai.com.example/v1",
        "https://openrouter.ai/api/v1",
    ],
)
def test_another_address_has_no_bundled_price(url: str) -> None:
    assert bundled_price(Provider(kind="openai", url=url), "gpt-4o") is None


def test_another_kind_has_no_bundled_price() -> None:
    provider = Provider(kind="anthropic", url="https://api.openai.com/v1")
    assert bundled_price(provider, "gpt-4o") is None


def test_prices_are_micro_dollars_per_token_with_defaults() -> None:
    assert micro_dollars_of(ModelPrice(input=2, output=8, request=0.5)) == (2, 2, 2, 8, 8, 500_000)
    whole = ModelPrice(input=2, cached_input=0, cache_write=3, output=8, reasoning=9)
    assert micro_dollars_of(whole) == (2, 0, 3, 8, 9, 0)


def test_a_cache_of_one_hour_has_a_price_of_its_own_if_declared() -> None:
    hour = ModelPrice(input=2, cache_write=2.5, cache_write_1h=4, output=8)
    assert micro_dollars_of(hour) == (2, 2, 2.5, 8, 8, 0, 4)
    assert micro_dollars_of(ModelPrice(input=2, cache_write_1h=2, output=8)) == (2, 2, 2, 8, 8, 0)
    assert micro_dollars_of(ModelPrice(cache_write_1h=4)) == (0, 0, 0, 0, 0, 0, 4)
    bundled = bundled_price(Provider(kind="anthropic"), "claude-haiku-4-5")
    assert bundled is not None
    assert bundled.cache_write_1h == 2 * bundled.input


def test_audio_and_images_have_prices_of_their_own_if_declared() -> None:
    price = ModelPrice(input=2, cache_write=3, output=8, audio_input=30, audio_output=60)
    assert micro_dollars_of(price) == (2, 2, 3, 8, 8, 0, 3, 30, 2, 60)
    assert micro_dollars_of(ModelPrice(image_input=5)) == (0, 0, 0, 0, 0, 0, 0, 0, 5, 0)
    same = ModelPrice(input=2, output=8, audio_input=2, image_input=2, audio_output=8)
    assert micro_dollars_of(same) == (2, 2, 2, 8, 8, 0)


@given(price=st.builds(ModelPrice, input=st.floats(0, 100), output=st.floats(0, 100)))
def test_a_model_is_free_only_if_every_price_is_zero(price: ModelPrice) -> None:
    assert (micro_dollars_of(price) == ()) == (price.input == price.output == 0)
