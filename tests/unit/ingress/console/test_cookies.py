"""Cookies of the console: which hosts can set them, and which claims they carry."""

import pytest

from toolbus_ingress.console.account import COOKIE, SignInAttempt, _refusal
from toolbus_ingress.console.session import ConsoleSession, SealedCookie, SessionCookie
from toolbus_ingress.sessions.sealed_claims import ClaimSealer

SEALER = ClaimSealer(bytes(32))
ATTEMPT = SignInAttempt("state", "verifier", 2e9)


def sent(cookie: str) -> dict[bytes, bytes]:
    """Return the headers of a browser that stored a cookie."""
    return {b"cookie": cookie.partition(";")[0].encode()}


@pytest.mark.parametrize("name", ["toolbus_console", COOKIE])
def test_over_https_only_this_host_can_set_a_cookie(name: str) -> None:
    cookie = SealedCookie(SEALER, secure=True, plain_name=name)
    value, *attributes = cookie.close(ATTEMPT, 900).split("; ")
    assert value.startswith(f"__Host-{name}=")
    assert set(attributes) == {"Path=/", "Max-Age=900", "HttpOnly", "SameSite=Lax", "Secure"}
    assert cookie.open(sent(value), SignInAttempt) == ATTEMPT
    of_other_host = value.removeprefix("__Host-")
    assert cookie.open(sent(of_other_host), SignInAttempt) is None


def test_a_started_sign_in_is_no_session() -> None:
    started = SealedCookie(SEALER, secure=False, plain_name="toolbus_console").close(ATTEMPT, 900)
    cookie = SessionCookie(SEALER, secure=False)
    assert cookie.open(sent(started), ConsoleSession) is None
    session = cookie.read(sent(cookie.begin("secret", 900, account=True)))
    assert session is not None
    assert (session.credential, session.account, session.linked) == ("secret", True, False)
    assert cookie.read(sent(cookie.begin("secret", 0))) is None


def test_the_page_says_why_the_authorization_server_sent_no_code() -> None:
    assert "did not allow" in _refusal({"error": "access_denied"})
    invalid = {"error": "invalid_target", "error_description": "It does not exist."}
    assert _refusal(invalid) == "It does not exist. Start it again."
    assert len(_refusal({"error_description": "x" * 10_000})) < 600
