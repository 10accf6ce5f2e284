"""HTML pages: their content and their response headers."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest
from jinja2 import UndefinedError

from toolbus_common.errors import UnavailableError
from toolbus_common.web import html
from toolbus_ingress import oauth_proxy

MESSAGE = "toolbus_common.web/message.html"


def policy(*, leads_on: bool = False) -> str:
    return dict(html.headers(leads_on=leads_on))["content-security-policy"]


def test_a_page_has_one_heading_a_language_and_the_allowed_style() -> None:
    page = html.render(MESSAGE, title="Sign in", message="Hello")
    assert page.startswith('<!doctype html>\n<html lang="en">')
    assert re.findall(r"<h1>(.*?)</h1>", page) == ["Sign in"]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in policy()
    for other in ("<script", "http:", "https:", "url(", "@import", " src=", " style="):
        assert other not in page


def test_a_page_restricts_form_targets_unless_its_form_redirects() -> None:
    assert "form-action 'self'" in policy()
    assert "form-action" not in policy(leads_on=True)
    for each in (policy(), policy(leads_on=True)):
        assert each.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'; base-uri 'none'" in each


def test_a_page_is_neither_stored_nor_framed_nor_guessed_to_be_something_else() -> None:
    fields = dict(html.headers())
    del fields["content-security-policy"]
    assert fields == {
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }


@pytest.mark.parametrize("text", ['<b>"&', "a\u202eb\u200bc"])
def test_foreign_text_is_escaped_and_fully_visible(text: str) -> None:
    page = html.render(MESSAGE, title=text, message=text, error=text)
    assert text not in page
    assert "<b>" not in page
    assert ("\\u{202e}" in page) == ("\u202e" in text)


def test_an_error_is_an_alert_and_part_of_the_title() -> None:
    page = html.render(MESSAGE, title="Sign in", message="Hello", error="Wrong <password>.")
    assert '<p class="error" id="error" role="alert">Wrong &lt;password&gt;.</p>' in page
    assert "<title>Error: Sign in · Toolbus</title>" in page
    assert "alert" not in html.render(MESSAGE, title="Sign in", message="Hello")


def test_a_value_that_a_template_lacks_is_an_error_and_never_an_empty_text() -> None:
    with pytest.raises(UndefinedError, match="message"):
        html.render(MESSAGE, title="Sign in")


def test_a_template_is_compiled_once() -> None:
    assert html._environment() is html._environment()
    get = html._environment().get_template
    assert get(MESSAGE) is get(MESSAGE)


def test_a_failed_page_is_html_for_browsers_and_json_for_programs() -> None:
    failed = UnavailableError("No service responds <there>.")
    shown = oauth_proxy._error_response(failed, {b"accept": b"text/html,*/*;q=0.8"})
    assert (shown.status, b"No service responds &lt;there&gt;." in shown.body) == (503, True)
    assert (b"content-type", b"text/html; charset=utf-8") in shown.headers
    page = oauth_proxy._error_response(failed, {b"accept": b"*/*"})
    assert (page.status, page.body[:1]) == (503, b"{")
