"""HTML pages: their content and their response headers."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from toolbus_common.errors import UnavailableError
from toolbus_common.web import html as webpage
from toolbus_ingress import oauth_proxy as pages


def policy(*, leads_on: bool = False) -> str:
    return dict(webpage.headers(leads_on=leads_on))["content-security-policy"]


def test_a_page_has_one_heading_a_language_and_the_allowed_style() -> None:
    page = webpage.document("Sign in", "<p>Hello</p>").decode()
    assert page.startswith('<!doctype html><html lang="en">')
    assert re.findall(r"<h1>(.*?)</h1>", page) == ["Sign in"]
    (style,) = re.findall(r"<style>(.*?)</style>", page)
    assert f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in policy()
    for other in ("<script", "http:", "https:", "url(", "@import", " src=", " style="):
        assert other not in page


def test_a_page_restricts_form_targets_unless_its_form_redirects() -> None:
    assert "form-action 'self'" in policy()
    assert "form-action" not in policy(leads_on=True)
    for each in (policy(), policy(leads_on=True)):
        assert each.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'; base-uri 'none'" in each


@pytest.mark.parametrize("text", ['<b>"&', "a\u202eb\u200bc"])
def test_foreign_text_is_escaped_and_fully_visible(text: str) -> None:
    html = webpage.described({"Name": text})
    assert text not in html
    assert "<b>" not in html
    assert ("\\u{202e}" in html) == ("\u202e" in text)
    assert "<b>" not in webpage.refusal(text) + webpage.warning(text) + webpage.ticket(text)


def test_a_failed_page_is_html_for_browsers_and_json_for_programs() -> None:
    failed = UnavailableError("No service responds <there>.")
    shown = pages._error_response(failed, {b"accept": b"text/html,*/*;q=0.8"})
    assert (shown.status, b"No service responds &lt;there&gt;." in shown.body) == (503, True)
    assert (b"content-type", b"text/html; charset=utf-8") in shown.headers
    page = pages._error_response(failed, {b"accept": b"*/*"})
    assert (page.status, page.body[:1]) == (503, b"{")
