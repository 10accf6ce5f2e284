"""Counters that are rebuilt from events count models as admission does."""

from time import time

from toolbus_common.config import Configuration
from toolbus_policy.ledger.recovery.rebuild_counters import (
    CounterRebuild,
    limits_of,
    required_sums_of,
)

DECLARED = Configuration.model_validate(
    {
        "providers": {"local": {"kind": "openai", "url": "http://127.0.0.1:9/v1"}},
        "models": {"fast": [{"provider": "local", "model": "gemma"}]},
        "keys": {
            "bot": {
                "budgets": [
                    {"usd": 1, "per": "day"},
                    {"usd": 1, "per": "day", "models": ["fast"]},
                    {"usd": 1, "per": "day", "models": ["slow"]},
                    {"usd": 1, "per": "day", "tools": ["*"]},
                ]
            }
        },
    }
)


def test_sums_of_models_and_tools_count_in_their_budgets() -> None:
    now = time()
    limits = limits_of("default", DECLARED, DECLARED.keys)
    (need,) = required_sums_of(limits, now)
    rebuild = CounterRebuild("default", limits, DECLARED, now, 5.0)
    over = 2_000_000  # a debt: a provider billed more than the budget
    rows = [
        ("bot", "", "", "local", "gemma", 0, 3, over),
        ("bot", "", "", "local", "llama", 0, 1, 10),
        ("bot", "", "", "docs", "search", 0, 1, 7, ""),
        ("bot", "", "", "local", "removed", 0, 1, 5, "fast former"),
    ]
    rebuild.add_sums(need, rows)
    spent = [rebuild.contents.levels[limit.counter]["spent"] for limit in limits["key:bot"]]
    assert spent == [over + 22, over + 5, 0, 7]
