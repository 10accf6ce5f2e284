"""A person connects an account at an upstream in a real browser."""

from collections.abc import Callable

from harness.clients.chromium_browser import Person
from harness.gateway.browser_gateway import BOB, Gateway, signs_in
from harness.waits import until_blocking


def connect_link(gateway: Gateway) -> str:
    """Return the connect link in the reply to bob's call."""
    text = gateway.launched.client(BOB).call("docs__connect_account").text
    return next(word for word in text.split() if "/oauth/connect/" in word)


def test_a_person_connects_their_account_and_another_may_not(
    gateway: Gateway, someone: Callable[..., Person]
) -> None:
    link = connect_link(gateway)
    other = someone()
    other.opens(link)
    other.presses("Sign in with corp")
    other.page.get_by_role("link", name="I am ann").click()
    other.sees("This link is for another person")
    other.keeps("connect-not-yours")

    bob = someone()
    bob.opens(link)
    signs_in(bob)
    assert "read" in bob.sees("Connect Toolbus?").inner_text()
    bob.keeps("connect")
    bob.presses("Do not connect")
    bob.sees("Not connected")
    bob.keeps("connect-refused")

    bob.opens(link)
    bob.sees("Connect Toolbus?")
    bob.presses("Continue")
    bob.sees("Connected")
    bob.keeps("connected")
    agent = gateway.launched.client(BOB)
    until_blocking(lambda: "docs__whoami" in agent.tools(), "the tools of the account")
    assert agent.call("docs__whoami").text == "ann@far"
