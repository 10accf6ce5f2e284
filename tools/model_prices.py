"""Make the bundled table of model prices from a wheel of litellm.

Run `python tools/model_prices.py WHEEL DATE`, where DATE is the day on which the wheel was read.
"""

import json
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

TABLE = Path(__file__).parents[1] / "services/policy/toolbus_policy/models/prices.json"
SOURCE = "litellm/model_prices_and_context_window_backup.json"
# By table: the values of the file's field `litellm_provider`. A model's name can begin with its
# table's name.
PROVIDERS = {
    **{name: (name,) for name in ("openai", "anthropic", "gemini", "mistral", "groq", "deepseek")},
    "vertex_ai": (
        *("vertex_ai", "vertex_ai-language-models", "vertex_ai-embedding-models"),
        "vertex_ai-anthropic_models",
    ),
    "bedrock": ("bedrock", "bedrock_converse"),
}
CLOUDS = ("vertex_ai", "bedrock")  # a slash in their names is a region or another publisher
MODES = ("chat", "responses", "embedding")
FIELDS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token",
}
# Models that are billed by more than tokens of text. A cached token is never free, so a price of
# zero is left out.
OTHER_UNITS = ("audio", "realtime", "live", "image", "tts", "ft:", "search", "deep-research")
MILLION = 1_000_000


def main(wheel: str, date: str) -> None:
    """Write the table."""
    with ZipFile(wheel) as packed:
        models = json.loads(packed.read(SOURCE))
    version = Path(wheel).name.split("-")[1]
    source = {"file": SOURCE, "package": f"litellm {version}", "licence": "MIT", "date": date}
    found = {provider: dict(sorted(prices(models, provider).items())) for provider in PROVIDERS}
    lines = [f'  "source": {json.dumps(source)}']
    for provider, priced in found.items():
        rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(p)}" for name, p in priced.items())
        lines.append(f'  "{provider}": {{\n{rows}\n  }}')
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def prices(models: dict[str, Any], provider: str) -> dict[str, dict[str, float]]:
    """Return the prices of a provider's models in dollars per million tokens."""
    found = {}
    for name, entry in models.items():
        own = name.removeprefix(f"{provider}/")
        if entry.get("litellm_provider") not in PROVIDERS[provider]:
            continue
        if entry.get("mode") not in MODES or (provider in CLOUDS and "/" in own):
            continue
        price = {
            field: round(float(entry[key]) * MILLION, 6)
            for field, key in FIELDS.items()
            if entry.get(key) or (field == "output" and entry.get(key) is not None)
        }
        if price.get("input") and not any(unit in own for unit in OTHER_UNITS):
            found[own] = price
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
