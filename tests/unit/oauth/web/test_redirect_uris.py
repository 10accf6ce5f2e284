"""Redirect URIs: which are registered, and which match a registered one."""

import pytest

from toolbus_oauth.web import redirect_uris as redirects


@pytest.mark.parametrize(
    "uri",
    [
        "http://client.test/back", "javascript:alert(1)", "data:text/html,x", "file:///etc/x",
        "https://a@client.test/", "https://client.test/#x", "https:///x", "//client.test/x",
        "https://client.test/\nx", "https://client.test\\@evil.test/", "", "https://x:y/",
        "http://localhost.evil.test/", "https://a;script-src/x", "https://a'b.test/", "vbscript:x", "https://client.test/\x7f",
    ],
)  # fmt: skip
def test_an_unsafe_redirect_uri_is_not_registered(uri: str) -> None:
    assert redirects.problem(uri)


@pytest.mark.parametrize(
    "uri", ["https://client.test/back?x=1", "http://localhost:1/x", "http://[::1]/", "cursor://x/y"]
)
def test_a_safe_redirect_uri_is_registered_and_matches_itself(uri: str) -> None:
    assert redirects.problem(uri) == ""
    assert redirects.matches(uri, [uri])


@pytest.mark.parametrize(
    ("uri", "registered"),
    [
        ("http://127.0.0.1:1@evil.test/back", "http://127.0.0.1/back"),
        ("http://127.0.0.1:1/backx", "http://127.0.0.1/back"),
        ("http://localhost/back", "http://127.0.0.1/back"),
        ("https://127.0.0.1:1/back", "https://127.0.0.1/back"),
        ("http://127.0.0.1.evil.test/back", "http://127.0.0.1/back"),
        ("https://client.test:1/back", "https://client.test/back"),
        ("HTTPS://client.test/back", "https://client.test/back"),
    ],
)
def test_a_uri_that_differs_from_the_registered_one_does_not_match(
    uri: str, registered: str
) -> None:
    assert not redirects.matches(uri, [registered])


def test_a_loopback_uri_may_have_another_port() -> None:
    assert redirects.matches("http://127.0.0.1:5123/back?x", ["http://127.0.0.1:9/back?x"])
