"""The pages people see: what they are made of, and what a browser is told about them."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from toolbus_common.errors import UnavailableError
from toolbus_common.web import html as webpage
from toolbus_ingress import oauth_proxy as pages


def policy(*, leads_on: bool = False) -> str:
    return dict(webpage.headers(leads_on=leads_on))["content-security-policy"]


def test_a_page_has_one_heading_its_language_and_the_one_style_its_policy_lets_in() -> None:
    page = webpage.document("Sign in", "<p>Hello</p>").decode()
    assert page.startswith('<!doctype html><html lang="en">')
    assert re.findall(r"<h1>(.*?)</h1>", page) == ["Sign in"]
    (style,) = re.findall(r"<style>(.*?)</style>", page)
    assert f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in policy()
    for other in ("<script", "http:", "https:", "url(", "@import", " src=", " style="):
        assert other not in page


def test_a_form_goes_nowhere_else_unless_its_answer_does() -> None:
    assert "form-action 'self'" in policy()
    assert "form-action" not in policy(leads_on=True)
    for each in (policy(), policy(leads_on=True)):
        assert each.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'; base-uri 'none'" in each


@pytest.mark.parametrize("text", ['<b>"&', "a\u202eb\u200bc"])
def test_what_others_chose_is_text_of_which_nothing_is_hidden(text: str) -> None:
    told = webpage.described({"Name": text})
    assert text not in told
    assert "<b>" not in told
    assert ("\\u{202e}" in told) == ("\u202e" in text)
    assert "<b>" not in webpage.refusal(text) + webpage.warning(text) + webpage.ticket(text)


def test_a_person_whose_page_cannot_be_made_now_is_shown_one_and_a_program_is_told() -> None:
    failed = UnavailableError("Nobody answers <there>.")
    shown = pages._error_response(failed, {b"accept": b"text/html,*/*;q=0.8"})
    assert (shown.status, b"Nobody answers &lt;there&gt;." in shown.body) == (503, True)
    assert (b"content-type", b"text/html; charset=utf-8") in shown.headers
    told = pages._error_response(failed, {b"accept": b"*/*"})
    assert (told.status, told.body[:1]) == (503, b"{")
