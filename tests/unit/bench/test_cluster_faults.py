"""The account of a fault finds each kind of loss; the page has the newest account of each."""

from collections import Counter
from typing import Any

import pytest

from cluster_faults import page
from cluster_faults.account import Account, Recorded, compare
from cluster_faults.installation import PRICE
from cluster_faults.load import RecordedLoad
from harness.clients.steady_load import Call, Ended

COMPLETED = Recorded(1, 1, 0, 0, PRICE)
UNKNOWN = Recorded(1, 0, 0, 1, PRICE)
REFUNDED = Recorded(1, 0, 1, 0, 0)


def account(executed: int, recorded: Recorded | None, *, answered: bool) -> Account:
    """Return the account of one call."""
    call = Call("run1.0", "count", "trace")
    load = RecordedLoad(str, "", "", 1.0, calls=[call])
    load.succeeded = [Ended(call, 0.0, 0.1)] if answered else []
    found = Account("none")
    compare(found, load, Counter({call.id: executed}), {"trace": recorded} if recorded else {})
    return found


@pytest.mark.parametrize(
    ("executed", "recorded", "answered"),
    [(1, COMPLETED, True), (1, UNKNOWN, False), (0, REFUNDED, False), (0, None, False)],
)
def test_a_call_that_is_recorded_and_charged_as_it_went_is_sound(
    executed: int, recorded: Recorded | None, *, answered: bool
) -> None:
    found = account(executed, recorded, answered=answered)
    assert found.sound
    assert found.not_executed == {}


def test_a_call_that_was_charged_without_being_executed_is_named() -> None:
    found = account(0, UNKNOWN, answered=False)
    assert found.sound
    assert found.not_executed == {"outcome_unknown": 1}


@pytest.mark.parametrize(
    ("executed", "recorded", "answered", "figures"),
    [
        (1, None, True, {"unrecorded": 1, "wrong_money": PRICE}),
        (1, Recorded(1, 0, 0, 0, 0), False, {"unrecorded": 1, "wrong_money": PRICE}),
        (1, REFUNDED, False, {"wrong_money": PRICE}),
        (0, COMPLETED, True, {"unrecorded": 1, "wrong_money": PRICE}),
        (0, COMPLETED, False, {"not_executed": {"completed": 1}, "wrong_money": PRICE}),
        (2, COMPLETED, True, {"duplicates": 1}),
    ],
)
def test_each_kind_of_loss_is_found(
    executed: int, recorded: Recorded | None, figures: dict[str, Any], *, answered: bool
) -> None:
    found = account(executed, recorded, answered=answered)
    assert not found.sound
    assert {name: getattr(found, name) for name in figures} == figures


def test_trouble_during_a_fault_and_after_it_are_separate_figures() -> None:
    found = Account("none")
    found.note_trouble([90.0, 104.0, 116.5, 119.0], 100.0, 116.0)
    assert (found.recovered, found.during, found.after) == (19.0, 4.0, 3.0)
    found.note_trouble([90.0], 100.0, 116.0)
    assert (found.recovered, found.during, found.after) == (0.0, 0.0, 0.0)


def test_the_page_is_the_newest_measurement_of_each_fault() -> None:
    assert page.PAGE.read_text() == page.text(page.reports()), 'run: make chaos ARGS="--page"'
