"""Counter names: a changed limit keeps what was spent, and budgets do not mix."""

from typing import Any

import pytest

from toolbus_common.config import Key, Level
from toolbus_policy.ledger.limits import budgets_of, loops_of, rates_of, repetition_key

DAILY = {"usd": 1, "per": "day"}


def counters(**fields: Any) -> list[str]:
    return [each.counter for each in budgets_of([("key:bot", Key.model_validate(fields))])]


def test_a_changed_limit_keeps_its_counter() -> None:
    assert counters(budget=DAILY) == counters(budget={**DAILY, "usd": 2})


@pytest.mark.parametrize(
    "other",
    [
        {"calls": 1, "per": "day"},
        {"usd": 1, "per": "hour"},
        {"usd": 1, "per": "day", "timezone": "Europe/Berlin"},
        {"usd": 1, "per": "day", "rolling": True},
        {"usd": 1, "per": "day", "tools": ["docs__*"]},
    ],
)
def test_budgets_that_count_differently_have_separate_counters(
    other: dict[str, Any],
) -> None:
    assert len(set(counters(budgets=[DAILY, other]))) == 2


def test_the_order_of_tools_does_not_change_the_counter() -> None:
    one, two = ({**DAILY, "tools": tools} for tools in (["a__*", "b__*"], ["b__*", "a__*"]))
    assert counters(budget=one) == counters(budget=two)


def test_of_two_budgets_with_one_counter_the_stricter_applies() -> None:
    key = Key.model_validate({"budgets": [DAILY, {**DAILY, "usd": 0.5}]})
    assert [each.maximum for each in budgets_of([("key:bot", key)])] == [500_000]


def test_every_rate_of_a_level_is_a_limit() -> None:
    rates = [{"calls": 1, "per": "second"}, {"calls": 10, "per": "minute"}]
    key = Key.model_validate({"rates": rates})
    assert [(each.maximum, each.length) for each in rates_of([("key:bot", key)])] == [
        (1, 1_000_000),
        (10, 60_000_000),
    ]


def test_a_budget_for_some_tools_counts_only_those() -> None:
    level = Level.model_validate({"budget": {**DAILY, "tools": ["docs__*"]}})
    (limit,) = budgets_of([("team:ops", level)])
    assert limit.counts("docs__search", 1)
    assert not limit.counts("mail__send", 1)


def test_a_free_call_counts_as_a_call_and_costs_nothing() -> None:
    level = Level.model_validate({"budgets": [DAILY, {"calls": 1, "per": "day"}]})
    counting = [each.counts("docs__search", 0) for each in budgets_of([("team:ops", level)])]
    assert counting == [False, True]


def test_a_call_is_repeated_only_by_the_same_call_in_the_same_run() -> None:
    call = ("run", "docs", "search", b'{"q": 1}')
    others = [
        ("other", "docs", "search", b'{"q": 1}'),
        ("run", "mail", "search", b'{"q": 1}'),
        ("run", "docs", "delete", b'{"q": 1}'),
        ("run", "docs", "search", b'{"q": 2}'),
    ]
    assert repetition_key(*call) == repetition_key(*call)
    assert repetition_key(*call) not in {repetition_key(*other) for other in others}


def test_a_level_without_a_loop_has_no_limit_on_repetition() -> None:
    assert loops_of([("key:bot", Key())]) == ()


def test_budgets_of_different_models_have_counters_of_their_own() -> None:
    kinds = [{}, {"tools": ["a"]}, {"models": ["a"]}, {"models": ["b"]}]
    kinds += [{"tools": ["a"], "models": ["a"]}, {"tools": ["a"], "models": ["b"]}]
    names = [counters(budget={**DAILY, **kind})[0] for kind in kinds]
    assert len(set(names)) == len(names)
    assert counters(budget={**DAILY, "models": ["a", "b"]}) == counters(
        budget={**DAILY, "models": ["b", "a"]}
    )


@pytest.mark.parametrize(
    ("fields", "tool", "model"),
    [
        ({}, True, True),
        ({"tools": ["docs__*"]}, True, False),
        ({"models": ["fast"]}, False, True),
        ({"tools": ["docs__*"], "models": ["fast"]}, True, True),
        ({"tools": ["mail__*"], "models": ["slow"]}, False, False),
    ],
)
def test_a_budget_counts_tools_and_models_as_declared(
    fields: dict[str, list[str]], *, tool: bool, model: bool
) -> None:
    (limit,) = budgets_of([("team:ops", Level.model_validate({"budget": {**DAILY, **fields}}))])
    assert limit.counts("docs__search", 1) == tool
    assert limit.counts_model(("local/gemma", "fast"), 1) == model
    assert not limit.counts_model(("local/gemma", "fast"), 0)


def test_rates_of_calls_and_of_tokens_have_different_counters() -> None:
    rates = [{"calls": 10, "per": "minute"}, {"tokens": 500, "per": "minute"}]
    found = rates_of([("key:bot", Key.model_validate({"rates": rates}))])
    assert [(each.counter, each.maximum, each.in_tokens) for each in found] == [
        ("rate:key:bot:minute", 10, False),
        ("rate:key:bot:tokens:minute", 500, True),
    ]
