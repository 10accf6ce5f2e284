"""A person decides about one call in a real browser."""

from collections.abc import Callable

import pytest

from harness.clients.chromium_browser import Person
from harness.gateway.browser_gateway import BOSS, BOT, Gateway

QUESTION = "Approve this call?"
SOMETHING_LONG = {
    "text": 'delete "everything" in /srv/archive\u202e, and its backups',
    "paths": [f"/srv/archive/2026/{month:02}/invoices-of-customers" for month in range(1, 4)],
}


@pytest.fixture
def page_of_a_call(gateway: Gateway, request: pytest.FixtureRequest) -> str:
    """Return the approval page of a waiting call."""
    fields = {**SOMETHING_LONG, "for": request.node.name}
    answer = gateway.launched.client(BOT).call("echo__say", fields)
    assert answer.code == "approval_required", answer.body
    return str(answer.error["data"]["page"])


def shows(person: Person, page: str) -> None:
    """Open the page with a key that may approve."""
    person.opens(page)
    person.fills(Key=BOSS)
    person.presses("Show")
    person.sees(QUESTION)


def test_a_person_sees_the_call_and_approves_it_once(
    page_of_a_call: str, someone: Callable[..., Person]
) -> None:
    boss = someone()
    boss.opens(page_of_a_call)
    boss.sees("A call is waiting for approval")
    boss.keeps("approval-key")
    boss.fills(Key=BOT)
    boss.presses("Show")
    boss.page.get_by_role("alert").wait_for()
    boss.keeps("approval-key-refused")
    boss.fills(Key=BOSS)
    boss.presses("Show")
    result = boss.sees(QUESTION).inner_text()
    for what in ("echo__say", "bot", "/srv/archive/2026/03", "\\u{202e}"):
        assert what in result
    boss.keeps("approval")
    boss.presses("Approve once")
    assert "Approved" in boss.sees("Approval").inner_text()
    boss.keeps("approval-done")
    boss.opens(page_of_a_call)
    boss.fills(Key=BOSS)
    boss.presses("Show")
    assert "no longer pending" in boss.sees("Approval").inner_text()


def test_enter_in_the_note_decides_nothing(
    page_of_a_call: str, someone: Callable[..., Person]
) -> None:
    boss = someone()
    shows(boss, page_of_a_call)
    boss.fills(Note="Not on a Friday.")
    boss.page.keyboard.press("Enter")
    boss.presses("Reject")  # would be missing if the call had been approved
    assert "Rejected" in boss.sees("Approval").inner_text()
    boss.keeps("approval-rejected")


def test_a_phone_shows_the_call_whole_and_in_the_dark(
    page_of_a_call: str, someone: Callable[..., Person]
) -> None:
    small = {"viewport": {"width": 320, "height": 640}, "is_mobile": True, "has_touch": True}
    boss = someone(color_scheme="dark", **small)
    shows(boss, page_of_a_call)
    boss.keeps("phone-dark-approval")
    assert not boss.overflows
