"""Run budget: reserved before a call, settled after it, never above the limit."""

from hypothesis import given
from hypothesis import strategies as st

from toolbus_codemode.programs.budget import RunBudget
from toolbus_codemode.programs.limits import REQUEST, Cap, Caps, caps_of
from toolbus_common.config import MICRO, Key, Programs, Team
from toolbus_common.mcp.code_mode_options import NO_OPTIONS, CodeModeOptions, decode_options

CALLS = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900), st.booleans()), max_size=40)


@given(st.integers(0, 2000), CALLS)
def test_concurrent_calls_never_exceed_the_cap(
    maximum: int, calls: list[tuple[int, int, bool]]
) -> None:
    budget = RunBudget(Cap(maximum / MICRO, "key:bot"))
    reserved: list[tuple[int, int]] = []
    for price, charge, wait in calls:
        amount = budget.hold(price)
        if price <= (budget.limit_of(amount) or 0):  # policy allows it
            reserved.append((amount, min(charge, price)))
        else:
            budget.settle(amount, 0)
        if not wait:
            for each in reserved:
                budget.settle(*each)
            reserved.clear()
        assert budget.held + budget.spent <= maximum
    assert budget.held == sum(amount for amount, _ in reserved)


def test_a_cap_in_dollars_is_exact_to_the_micro_dollar() -> None:
    for micro in range(1, 2000):
        assert RunBudget(Cap(micro / MICRO, "key:bot")).left == micro


def test_without_a_cap_spending_is_only_counted() -> None:
    budget = RunBudget()
    assert budget.limit_of(budget.hold(5)) is None
    budget.settle(5, 4)
    assert (budget.left, budget.spent, budget.held) == (None, 4, 0)


def test_the_smallest_cap_applies_and_names_its_level() -> None:
    usual = Caps(calls=Cap(100, "the gateway"), seconds=Cap(30, "the gateway"))
    key = Key(code_mode=Programs(usd=1.0, calls=200))
    team = Team(code_mode=Programs(usd=0.5, seconds=5))
    caps = caps_of([("key:bot", key), ("team:support", team)], usual)
    assert caps == Caps(Cap(0.5, "team:support"), usual.calls, Cap(5, "team:support"))
    assert caps.within(REQUEST, CodeModeOptions(usd=2.0, calls=3)) == Caps(
        caps.usd, Cap(3, REQUEST), caps.seconds
    )


def test_caps_do_not_decide_whether_code_mode_is_on() -> None:
    assert Key(code_mode=Programs(usd=1)).through_programs is None
    assert Key(code_mode=Programs(shown=True)).through_programs is True
    assert [Key(code_mode=message).through_programs for message in (True, False, None)] == [
        True, False, None,
    ]  # fmt: skip


def test_terms_are_sent_whole_and_omitted_if_empty() -> None:
    assert NO_OPTIONS.encode() == ""
    result = CodeModeOptions(usd=0.1, calls=3)
    assert decode_options(result.encode()) == result
    assert decode_options("") == NO_OPTIONS
