"""Sign-in to the console with an account: a local one, or one of a company's OpenID provider."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from harness.clients.admin_client import at
from harness.clients.console_browser import base_of, sends, shows
from harness.clients.form_browser import Browser, Page
from harness.gateway.browser_gateway import PASSWORD
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.oauth import openid_provider
from harness.oauth.openid_process import Provider, issuer
from harness.waits import until_blocking
from toolbus_ingress.console.account import COOKIE

ADMIN = "tba_admin_e2e-secret-of-the-accounts-01"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run Toolbus with local accounts and a company's OpenID provider."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    corp = Provider(tmp_path_factory.mktemp("corp"))
    environment = {"TOOLBUS_EGRESS_ALLOW": "127.0.0.0/8", "CORP_SECRET": openid_provider.SECRET}
    launched = Launched(tmp_path_factory.mktemp("accounts"), **environment)
    with ExitStack() as final:
        for each in (echo, corp):
            final.enter_context(each.running())
        document = {
            "servers": {"echo": {"url": echo.url}},
            "issuers": {"corp": issuer(corp, secret="${env:CORP_SECRET}")},
            "access": {
                "ops": {"claims": {"groups": "ops"}, "role": "operator"},
                "guests": {"claims": {"groups": "guests"}, "tools": ["*"]},
                "corp": {"issuer": "corp", "claims": {"groups": "staff"}, "role": "auditor"},
            },
            "admins": {"admin": {"role": "admin", "secret": ADMIN}},
        }
        final.enter_context(launched.running(document))
        for name, group in (("olga", "ops"), ("gil", "guests")):
            words = ("accounts", "add", name, "--group", group, "--password-stdin")
            added = launched.toolbus(*words, stdin=f"{PASSWORD}\n")
            assert added.returncode == 0, added.stderr
        yield launched


def started(gateway: Launched) -> tuple[Browser, Page]:
    """Return a browser, and the sign-in page of the gateway."""
    browser = Browser(base_of(gateway))
    assert "/console/sign-in/account" in shows(browser, "sign-in").text
    departure = shows(browser, "sign-in/account")
    assert departure.location.startswith(f"{browser.base}/oauth/authorize?")
    return browser, browser.get(departure.location)


def consenting(browser: Browser, page: Page, name: str) -> Page:
    """Sign in with a local account."""
    return browser.sign_in(page, name, PASSWORD)


def test_a_person_has_the_role_of_the_access_rule_until_they_sign_out(gateway: Launched) -> None:
    browser, page = started(gateway)
    consent = consenting(browser, page, "olga")
    assert "The console of Toolbus" in consent.text
    assert "administer Toolbus as operator" in consent.text
    back = browser.answer(consent)
    assert back.location.startswith(f"{browser.base}/console/signed-in?")
    assert browser.get(back.location).location == "/console"
    overview = shows(browser, "").text
    assert "<strong>olga</strong><span>operator</span>" in overview
    assert sends(browser, "keys/add", name="by-olga", tools="echo__*").status == 200
    rows = gateway.eventual_rows("SELECT by FROM config_changes WHERE name = 'by-olga'", bool)
    assert {row["by"] for row in rows} == {"olga"}
    assert browser.get(back.location).status == 403  # a code and its state are used once
    session = dict(browser.cookies)
    assert sends(browser, "sign-out").location == "/console/sign-in"
    browser.cookies = session
    assert shows(browser, "").location == "/console/sign-in"  # the grant has ended


def test_a_person_signs_in_at_their_company(gateway: Launched) -> None:
    browser, page = started(gateway)
    left = browser.post("/oauth/sign-in", ticket=page.ticket, issuer="corp")
    back = browser.get(left.link)
    consent = browser.get(back.location)
    assert "administer Toolbus as auditor" in consent.text
    browser.get(browser.answer(consent).location)
    assert "<span>auditor</span>" in shows(browser, "").text
    assert shows(browser, "audit").status == 200
    assert sends(browser, "keys/add", name="denied", tools="*").status != 200
    assert at(gateway, ADMIN).request("GET", "/v1/keys/denied").status == 404


def test_a_person_without_a_role_is_not_signed_in(gateway: Launched) -> None:
    browser, page = started(gateway)
    refused = consenting(browser, page, "gil")
    assert refused.status == 403
    assert "no access rule grants you access" in refused.text
    assert shows(browser, "").location == "/console/sign-in"


def test_a_person_who_denies_consent_is_not_signed_in(gateway: Launched) -> None:
    browser, page = started(gateway)
    back = browser.answer(consenting(browser, page, "olga"), "deny")
    assert browser.get(back.location).status == 403
    assert shows(browser, "").location == "/console/sign-in"


@pytest.mark.parametrize("forged", ["state", "iss", "code", "cookie", "other browser"])
def test_a_sign_in_of_another_browser_or_server_is_refused(gateway: Launched, forged: str) -> None:
    browser, page = started(gateway)
    answered = browser.answer(consenting(browser, page, "olga"))
    given = answered.parameters
    if forged == "cookie":
        browser.cookies[COOKIE] = browser.cookies[COOKIE].swapcase()
    elif forged == "other browser":
        browser, _ = started(gateway)
    else:
        given[forged] = "forged"
    refused = browser.get(f"{browser.base}/console/signed-in?" + "&".join(
        f"{name}={value}" for name, value in given.items()
    ))  # fmt: skip
    assert refused.status == 403
    assert 'role="alert"' in refused.text
    assert shows(browser, "").location == "/console/sign-in"


def test_without_roles_in_access_rules_accounts_cannot_sign_in(gateway: Launched) -> None:
    admin, paths = at(gateway, ADMIN), ("/v1/access/ops", "/v1/access/corp")
    kept = {path: admin.request("GET", path).json["value"] for path in paths}
    try:
        for path, rule in kept.items():
            without = {field: value for field, value in rule.items() if field != "role"}
            assert admin.request("PUT", path, without | {"tools": ["*"]}).status == 200
        browser = Browser(base_of(gateway))
        until_blocking(
            lambda: shows(browser, "sign-in/account").status == 404, "the roles are gone"
        )
        assert "/console/sign-in/account" not in shows(browser, "sign-in").text
    finally:
        for path, rule in kept.items():
            admin.request("PUT", path, rule)
