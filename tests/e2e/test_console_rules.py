"""Rules in the console: shadow results, mistakes, replay, and changes, each by its role."""

import re
from collections.abc import Iterator
from html import unescape

import pytest

from harness.clients.admin_client import at, named
from harness.clients.console_browser import sends, shows, signed_in_with
from harness.clients.form_browser import Browser, Page
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from toolbus_common.admin_api.roles import ROLES, may

SECRETS: dict[str, str] = {role: f"tba_{role}_e2e-secret-of-the-rules-01" for role in ROLES}
BOT = "tbk_bot_e2e-secret-of-the-rules-0001"
HOSTILE = "<img src=x onerror=alert(1)>"
SHADOW = f"""// {HOSTILE}
forbid(principal, action, resource == Tool::"echo__count");"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run Toolbus in front of one server, with a shadow rule and an admin key for each role."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    launched = Launched(tmp_path_factory.mktemp("rules"))
    document = {
        "servers": {"echo": {"url": echo.url}},
        "rules": {"img": {"cedar": SHADOW, "shadow": True, "reason": HOSTILE}},
        "keys": {"bot": {"secret": BOT, "tools": ["*"]}},
        "admins": {role: {"role": role, "secret": secret} for role, secret in SECRETS.items()},
    }
    with echo.running(), launched.running(document):
        launched.until_listed(launched.client(BOT), "echo__say")
        yield launched


def signed_in(gateway: Launched, role: str = "admin") -> Browser:
    """Return a browser that is signed in with the admin key of a role."""
    return signed_in_with(gateway, SECRETS[role])


def of_editor(page: Page, **changed: str) -> dict[str, str]:
    """Return the form of the editor of rules as a browser would send it."""
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)
    form = {name: unescape(value) for name, value in hidden if name != "token"}
    return {**form, "since": "24h", "effect": "deny", **changed}


def test_the_page_of_rules_counts_what_a_shadow_rule_would_have_denied(gateway: Launched) -> None:
    gateway.client(BOT).call("echo__count", {})
    gateway.eventual_rows("SELECT 1 FROM events WHERE has(shadow, 'img')", bool)
    page = shows(signed_in(gateway, "auditor"), "rules")
    assert re.search(r'amount">[1-9]\d* <span class="help">would be affected', page.text)
    assert re.search(r'href="/console/calls/[^"]+">A call', page.text)
    assert "would be affected" not in shows(signed_in(gateway, "viewer"), "rules").text


def test_every_mistake_of_a_rule_is_shown_in_its_line(gateway: Launched) -> None:
    browser = signed_in(gateway)
    wrong = f'forbid(principal, action, resource)\nwhen {{ foo "{HOSTILE}" }};\npermit(principal);'
    for action in ("replay", "apply"):
        form = of_editor(shows(browser, "rules/edit"), action=action, name="new", text=wrong)
        page = sends(browser, "rules/edit", **form)
        assert page.status == 422
        assert page.text.count('<p class="mistake">') >= 2
        assert page.text.count('<li class="wrong">') == 2
        assert HOSTILE not in page.text


def test_a_rule_is_replayed_then_applied_as_it_was_shown(gateway: Launched) -> None:
    browser, admin = signed_in(gateway), at(gateway, SECRETS["admin"])
    gateway.client(BOT).call("echo__say", {"text": "replayed"})
    said = "SELECT 1 FROM events WHERE event = 'call.allowed' AND tool = 'say'"
    gateway.eventual_rows(said, bool)
    rule = {
        "name": "quiet", "text": 'forbid(principal, action, resource == Tool::"echo__say");',
        "shadow": "yes", "reason": HOSTILE,
    }  # fmt: skip
    empty = of_editor(shows(browser, "rules/edit"), **rule)
    replayed = sends(browser, "rules/edit", **empty, action="replay")
    assert replayed.status == 200
    assert ("would be denied" in replayed.text, HOSTILE in replayed.text) == (True, False)
    form = of_editor(replayed, **rule, action="apply")
    changed = sends(browser, "rules/edit", **{**form, "reason": "another"})
    assert "The new rule" in changed.text
    assert admin.request("GET", named("rules", "quiet")).status == 404
    assert sends(browser, "rules/edit", **form).status == 303
    value = admin.request("GET", named("rules", "quiet")).json["value"]
    assert value == {"cedar": rule["text"], "shadow": True, "reason": HOSTILE}
    assert "exists" in sends(browser, "rules/edit", **form).text
    stale = sends(browser, "rules/edit", **{**form, "former": "quiet"})
    assert stale.status == 412
    own = of_editor(shows(browser, "rules/edit?name=quiet"), name="quiet", action="delete")
    assert sends(browser, "rules/edit", **own).status == 303
    assert admin.request("GET", named("rules", "quiet")).status == 404


@pytest.mark.parametrize("role", ROLES)
def test_a_role_replays_and_applies_rules_as_the_api_allows(gateway: Launched, role: str) -> None:
    browser = signed_in(gateway, role)
    rule = {"name": f"of-{role}", "text": "forbid(principal, action, resource);", "shadow": "yes"}
    form = of_editor(shows(browser, "rules/edit"), **rule)
    replayed = sends(browser, "rules/edit", **form, action="replay")
    assert (replayed.status == 200) == may(role, "audit")
    assert ("Apply this rule" in replayed.text) == may(role, "declare")
    if replayed.status == 200:
        form = of_editor(replayed, **rule)
    applied = sends(browser, "rules/edit", **form, action="apply")
    assert (applied.status == 303) == may(role, "declare")
    there = at(gateway, SECRETS["admin"]).request("GET", named("rules", f"of-{role}"))
    assert (there.status == 200) == may(role, "declare")
