"""Prices of models: those of the configuration, then those of the bundled table.

`prices.json` is made by `tools/model_prices.py`; its entry `source` names the origin of the prices.
It has the base prices of text tokens. It does not include the surcharges for long contexts, for
priority, for regions, for audio and for tools that the provider runs.
"""

import json
import re
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import MICRO, Configuration, ModelPrice, Provider
from toolbus_common.contracts.model_calls import model_name

FREE = ModelPrice()
Prices = tuple[float, ...]  # as in `CallAdmitted.price`; empty for a free model

# The bundled prices apply only at the provider's own address. Another server can serve a model of
# the same name at another price.
_TABLES = {
    ("openai", "api.openai.com"): "openai",
    ("anthropic", "api.anthropic.com"): "anthropic",
    ("openai", "generativelanguage.googleapis.com"): "gemini",
    ("openai", "api.mistral.ai"): "mistral",
    ("openai", "api.groq.com"): "groq",
    ("openai", "api.deepseek.com"): "deepseek",
    ("gemini", "generativelanguage.googleapis.com"): "gemini",
}
# The hosts of clouds contain the region or the location.
_CLOUDS = {
    "vertex": (
        "vertex_ai",
        re.compile(r"([a-z0-9-]+-)?aiplatform(\.(us|eu)\.rep)?\.googleapis\.com"),
    ),
    "bedrock": ("bedrock", re.compile(r"bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com")),
}


def price_of(declared: Configuration, provider: str, model: str) -> ModelPrice | None:
    """Return the price of a model; None if it has no price.

    The entry `provider/model` in `model_prices` applies, otherwise the longest matching pattern,
    otherwise the bundled price. A model without a price is free if its provider is `unpriced`.
    """
    name, prices, entry = model_name(provider, model), declared.model_prices, declared.providers
    if (found := prices.get(name)) is not None:
        return found
    if matching := [pattern for pattern in prices if granted((pattern,), name)]:
        return prices[max(matching, key=len)]
    bundled = bundled_price(entry[provider], model)
    return FREE if bundled is None and entry[provider].unpriced else bundled


def bundled_price(provider: Provider, model: str) -> ModelPrice | None:
    """Return the bundled price of a model at the provider's own address; None if there is none."""
    address = urlsplit(provider.base_url)
    host = address.hostname or ""
    table = _TABLES.get((provider.kind, host))
    cloud = _CLOUDS.get(provider.kind)
    if cloud is not None and cloud[1].fullmatch(host):
        table = cloud[0]
    if table is None or address.scheme != "https":
        return None
    return _bundled().get(table, {}).get(model)


def micro_dollars_of(price: ModelPrice) -> Prices:
    """Return the micro-dollars per token of each kind and per request; empty for a free model.

    If a token that is cached for an hour has another price than `cache_write`, this price follows.
    If audio or images have another price than text, all prices are present.
    """
    # One dollar per million tokens is one micro-dollar per token.
    cached = price.input if price.cached_input is None else price.cached_input
    written = price.input if price.cache_write is None else price.cache_write
    reasoning = price.output if price.reasoning is None else price.reasoning
    hour = written if price.cache_write_1h is None else price.cache_write_1h
    parts: Prices = (price.input, cached, written, price.output, reasoning, price.request * MICRO)
    media = (price.audio_input, price.image_input, price.audio_output)
    texts = (price.input, price.input, price.output)
    found = tuple(text if each is None else each for each, text in zip(media, texts, strict=True))
    if found != texts:
        parts = (*parts, hour, *found)
    elif hour != written:
        parts = (*parts, hour)
    return parts if any(parts) else ()


@cache
def _bundled() -> dict[str, dict[str, ModelPrice]]:
    """Return the bundled prices by table and model. They are read at their first use."""
    tables = json.loads((files(__package__) / "prices.json").read_bytes())
    tables.pop("source")
    return {
        table: {model: ModelPrice(**price) for model, price in models.items()}
        for table, models in tables.items()
    }
