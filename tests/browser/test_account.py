"""A person reviews and ends the access they allowed, in a real browser."""

from collections.abc import Callable
from typing import Any

import pytest

from harness.clients.chromium_browser import Person
from harness.gateway.browser_gateway import Gateway, signs_in
from harness.oauth.native_app import Program

TITLE = "Access you allowed"
KINDS: dict[str, dict[str, Any]] = {
    "desk": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 320, "height": 640}, "is_mobile": True, "has_touch": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_person_ends_what_they_allowed_a_program(
    gateway: Gateway, program: Program, someone: Callable[..., Person], kind: str
) -> None:
    bob = someone(**KINDS[kind])
    bob.opens(program.address())
    signs_in(bob)
    bob.sees("Allow this program?")
    bob.presses("Allow")
    bob.page.wait_for_url("**/thanks")
    program.token()
    bob.opens(f"{gateway.base}/oauth/account")
    buttons = bob.page.get_by_role("button", name="End access of Acme Desktop")
    assert "You are signed in as bob" in bob.sees(TITLE).inner_text()
    bob.keeps(f"account-{kind}")
    assert not bob.overflows
    while before := buttons.count():
        with bob.page.expect_navigation():
            buttons.first.click()
        bob.sees(TITLE)
        assert buttons.count() == before - 1
    assert "No program can act for you." in bob.sees(TITLE).inner_text()
    bob.keeps(f"account-{kind}-ended")


def test_a_person_who_opens_their_account_signs_in_first(
    gateway: Gateway, someone: Callable[..., Person]
) -> None:
    bob = someone()
    bob.opens(f"{gateway.base}/oauth/account")
    assert "the access you allowed" in bob.sees("Sign in").inner_text()
    bob.keeps("account-sign-in")
    signs_in(bob)
    bob.sees(TITLE)
    bob.presses("Sign in as someone else")
    bob.sees("Sign in")
