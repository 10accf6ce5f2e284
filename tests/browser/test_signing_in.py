"""People sign in and consent in a real browser."""

from base64 import b32decode
from collections.abc import Callable
from time import time

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from harness.clients.chromium_browser import Person
from harness.clients.mcp_client import Client
from harness.gateway.browser_gateway import PASSWORD, Gateway, signs_in
from harness.oauth.native_app import Program

Someone = Callable[..., Person]
CONSENT = "Allow this program?"


def calls(gateway: Gateway, token: str) -> str:
    """Return a tool's answer to the owner of the token."""
    return Client(f"{gateway.base}/mcp", token).call("echo__say", {"text": "hello"}).text


def test_a_person_with_a_second_factor_allows_a_program_and_it_calls(
    gateway: Gateway, program: Program, someone: Someone
) -> None:
    ann = someone()
    ann.opens(program.address())
    assert "Acme Desktop" in ann.sees("Sign in").inner_text()
    ann.keeps("sign-in")
    ann.fills(Name="ann", Password="not hers")
    ann.presses("Sign in")
    ann.page.get_by_role("alert").wait_for()
    ann.keeps("sign-in-refused")
    clock = TOTP(b32decode(gateway.second_factor), 6, SHA1(), 30)
    ann.fills(Name="ann", Password=PASSWORD, Code=clock.generate(int(time())).decode())
    ann.presses("Sign in")
    result = ann.sees(CONSENT).inner_text()
    for what in ("Acme Desktop", "ann", f"{gateway.base}/mcp", program.redirect.split("/")[2]):
        assert what in result
    ann.keeps("consent")
    ann.presses("Allow")
    ann.page.wait_for_url("**/thanks")
    assert calls(gateway, program.token()) == "hello"
    assert ann.complaints == []


def test_a_person_who_denies_consent_stays_signed_in(program: Program, someone: Someone) -> None:
    bob = someone()
    bob.opens(program.address())
    signs_in(bob)
    bob.sees(CONSENT)
    bob.presses("Deny")
    bob.page.wait_for_url("**/thanks")
    assert program.answer()["error"] == "access_denied"
    bob.opens(program.address())
    bob.sees(CONSENT)
    bob.presses("Sign in as someone else")
    bob.sees("Sign in")


def test_a_person_signs_in_where_their_company_does(
    gateway: Gateway, program: Program, someone: Someone
) -> None:
    ann = someone()
    ann.opens(program.address())
    ann.presses("Sign in with corp")
    ann.page.get_by_role("link", name="I am ann").click()
    assert "rule corp" in ann.sees(CONSENT).inner_text()
    ann.keeps("consent-of-a-company")
    ann.presses("Allow")
    ann.page.wait_for_url("**/thanks")
    assert calls(gateway, program.token()) == "hello"


def test_a_person_brings_the_code_a_device_shows(
    gateway: Gateway, program: Program, someone: Someone
) -> None:
    waiting = program.waits()
    bob = someone()
    bob.opens(waiting["verification_uri"])
    bob.sees("Connect a device")
    bob.keeps("device")
    bob.fills(Code="BCDF-GHJK")
    bob.presses("Continue")
    bob.page.get_by_role("alert").wait_for()
    bob.keeps("device-unknown")
    bob.fills(Code=waiting["user_code"].lower())
    bob.presses("Continue")
    signs_in(bob)
    assert waiting["user_code"] in bob.sees(CONSENT).inner_text()
    bob.keeps("device-consent")
    bob.presses("Allow")
    bob.sees("Done")
    bob.keeps("device-done")
    assert calls(gateway, program.fetches(waiting)) == "hello"


def test_a_keyboard_is_enough(program: Program, someone: Someone) -> None:
    bob = someone()
    bob.opens(program.address())
    bob.sees("Sign in")
    bob.page.locator("input:focus").wait_for()  # the page does it once it is shown
    keyboard = bob.page.keyboard
    keyboard.type("bob")
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    keyboard.press("Enter")
    bob.sees(CONSENT)
    keyboard.press("Tab")
    assert bob.page.locator(":focus").inner_text() == "Allow"
    bob.keeps("consent-by-keyboard")
    keyboard.press("Tab")
    assert bob.page.locator(":focus").inner_text() == "Deny"
    keyboard.press("Enter")
    bob.page.wait_for_url("**/thanks")
    assert program.answer()["error"] == "access_denied"


def test_a_browser_without_scripts_is_enough(program: Program, someone: Someone) -> None:
    bob = someone(java_script_enabled=False)
    bob.opens(program.address())
    signs_in(bob)
    bob.sees(CONSENT)
    bob.presses("Allow")
    bob.page.wait_for_url("**/thanks")
    assert program.answer()["code"]


def test_a_phone_shows_the_pages_whole(program: Program, someone: Someone) -> None:
    phone = {"viewport": {"width": 320, "height": 640}, "is_mobile": True, "has_touch": True}
    bob = someone(**phone)
    bob.opens(program.address())
    bob.sees("Sign in")
    bob.keeps("phone-sign-in")
    assert not bob.overflows
    signs_in(bob)
    bob.sees(CONSENT)
    bob.keeps("phone-consent")
    assert not bob.overflows


def test_the_pages_are_dark_for_who_likes_it_so(program: Program, someone: Someone) -> None:
    bob = someone(color_scheme="dark")
    bob.opens(program.address())
    bob.sees("Sign in")
    bob.keeps("dark-sign-in")
    signs_in(bob)
    bob.sees(CONSENT)
    bob.keeps("dark-consent")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert bob.page.evaluate(ground) == "rgb(13, 17, 23)"


@pytest.mark.parametrize(
    ("name", "path", "heading", "text"),
    [
        (
            "a-client-nobody-knows",
            "authorize?client_id=x",
            "This request cannot continue",
            "client",
        ),
        ("a-link-nobody-knows", "connect/x", "This request cannot continue", "Call the tool again"),
        (
            "a-way-back-nobody-knows",
            "callback/corp?state=x",
            "This request cannot continue",
            "Restart the sign-in",
        ),
        ("a-page-reloaded", "sign-in", "Page not found", "Restart the sign-in"),
    ],
)
def test_a_dead_end_is_a_page_that_says_what_to_do(
    gateway: Gateway, someone: Someone, name: str, path: str, heading: str, text: str
) -> None:
    anyone = someone()
    anyone.opens(f"{gateway.base}/oauth/{path}")
    assert text in anyone.sees(heading).inner_text()
    anyone.keeps(name)


def test_an_address_the_program_never_named_is_not_gone_to(
    program: Program, someone: Someone
) -> None:
    bob = someone()
    bob.opens(program.address(redirect_uri="https://evil.example/"))
    assert "Do not continue" in bob.sees("This request cannot continue").inner_text()
    bob.keeps("an-address-never-named")
