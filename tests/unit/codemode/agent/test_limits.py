"""Limits of a run: which one ends it, and what a repeated request still may use."""

import pytest

from toolbus_codemode.agent.dialects.base import Suggested
from toolbus_codemode.agent.limits import Reached, Used, before_turn, count_calls
from toolbus_common.config.access.agent_mode import AgentMode


def calls(*arguments: str, name: str = "shop__say") -> list[tuple[str, Suggested]]:
    """Return calls of one tool."""
    return [(name, Suggested(f"c{at}", name, each)) for at, each in enumerate(arguments)]


def name_of(reached: Reached | None) -> str:
    """Return the name of a reached limit; empty for none."""
    return reached.limit if reached is not None else ""


@pytest.mark.parametrize(
    ("limits", "used", "reached"),
    [
        ({"turns": 2}, Used(turns=1), ""),
        ({"turns": 2}, Used(turns=2), "turns"),
        ({"tokens": 10}, Used(tokens=9), ""),
        ({"tokens": 10}, Used(tokens=10), "tokens"),
        ({"usd": 0.01}, Used(cost=9_999), ""),
        ({"usd": 0.01}, Used(cost=10_000), "usd"),
        ({"usd": 0}, Used(), ""),  # free models only: policy refuses the others
        ({"seconds": 5}, Used(seconds=5.0), "seconds"),
    ],
)
def test_a_turn_is_forbidden_when_a_limit_is_reached(
    limits: dict[str, float], used: Used, reached: str
) -> None:
    assert name_of(before_turn(AgentMode.model_validate(limits), used)) == reached


def test_the_message_names_the_field_of_the_key_and_what_to_do() -> None:
    reached = before_turn(AgentMode(turns=1), Used(turns=1))
    assert reached
    assert "limit of 1 model requests ('agent.turns' of the key)" in reached.note
    assert "ask an operator" in reached.note


def test_calls_count_together_by_tool_and_by_arguments() -> None:
    used, limits = Used(), AgentMode(calls=3, calls_per_tool=2, repeats=1)
    assert count_calls(limits, used, calls("1", "2")) is None
    assert name_of(count_calls(limits, used, calls("3"))) == "calls_per_tool"
    assert name_of(count_calls(limits, used, calls("1", "2", name="other"))) == "calls"
    assert count_calls(limits, used, calls("1", name="other")) is None
    assert (used.calls, used.by_tool["shop__say"]) == (3, 2)


def test_the_same_call_with_the_same_arguments_is_a_repetition() -> None:
    used, limits = Used(), AgentMode(repeats=2)
    assert count_calls(limits, used, calls("1", "1")) is None
    assert name_of(count_calls(limits, used, calls("1"))) == "repeats"
    assert count_calls(limits, used, calls("2")) is None


def test_calls_that_are_forbidden_do_not_count() -> None:
    used = Used()
    assert count_calls(AgentMode(calls=1), used, calls("1", "2"))
    assert used == Used()


@pytest.mark.parametrize(("held", "cost"), [(None, 10_000), (300, 4_300)])
def test_an_interrupted_model_request_counts_at_its_bound(held: int | None, cost: int) -> None:
    used = Used(cost=4_000, asking=True, held=held)
    used.settle_interrupted(AgentMode(usd=0.01))
    assert (used.cost, used.asking) == (cost, False)


def test_without_a_limit_of_money_an_interrupted_request_without_a_bound_counts_nothing() -> None:
    used = Used(cost=4_000, asking=True)
    used.settle_interrupted(AgentMode())
    assert used.cost == 4_000


def test_the_same_arguments_in_another_form_are_a_repetition() -> None:
    used, limits = Used(), AgentMode(repeats=2)
    assert count_calls(limits, used, calls('{"a":1,"b":2}', '{"b": 2, "a": 1}')) is None
    assert name_of(count_calls(limits, used, calls(' {"a":1,"b":2}'))) == "repeats"
