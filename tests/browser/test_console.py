"""People use the console in a real browser: every page, in both themes and on a phone."""

from collections.abc import Callable

import pytest

from harness.clients.chromium_browser import Person
from harness.gateway.browser_gateway import BOT, ROOT, Gateway, account, signs_in
from harness.waits import until_blocking

PAGES = {
    "": "Overview", "overview?period=month": "Overview", "health": "Health",
    "live": "Live calls", "calls": "Recorded calls", "calls/sql": "Query with SQL",
    "calls/nothing": "One call", "analytics": "Analytics", "analytics/spend-by-day": "Spend by day",
    "analytics/who-called": "Who called", "analytics/one-call": "One call",
    "models": "Models", "guards": "Guards", "runs": "Agent runs", "settings": "Settings",
    "audit": "Audit", "audit/evidence": "Signed logs and exports",
    "audit/erasures": "Erase a person", "settings/revisions/999999": "Revision 999999",
    "approvals": "Approvals", "servers": "Servers",
    "servers/echo": "echo", "servers/add": "Add servers", "servers/echo/tools": "Tools of echo",
    "servers/echo/tools/try?tool=say": "Try say", "keys": "Keys",
    "keys/bot": "bot", "keys/bot/explain?call=echo__say": "Explain a call",
    "keys/add": "Create a key", "budgets": "Budgets",
    "rules": "Rules", "rules/edit": "Add a rule", "rules/edit?name=paths": "Rule paths",
    "entries/labels": "Labels", "entries/labels/edit": "Add to labels", "entries/users": "Users",
    "entries/access/edit?name=staff": "Access staff", "configuration": "Configuration",
}  # fmt: skip


def enters(person: Person, gateway: Gateway) -> None:
    """Sign in with a link."""
    person.opens(gateway.launched.toolbus("console").stdout.strip())
    person.sees("Open the console")
    person.presses("Sign in")
    person.sees("Overview")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_is_accessible_in_both_themes_and_on_a_phone(
    gateway: Gateway, someone: Callable[..., Person], theme: str, width: int
) -> None:
    person = someone(color_scheme=theme, viewport={"width": width, "height": 800})
    enters(person, gateway)
    for path, heading in PAGES.items():
        person.opens(f"{gateway.base}/console/{path}".rstrip("/"))
        person.sees(heading)
        name = path.partition("?")[0].replace("/", "-") or "overview"
        person.keeps(f"console-{name}-{theme}-{width}")
        assert not person.overflows, path


def test_a_person_signs_in_with_an_account_until_they_sign_out(
    gateway: Gateway, someone: Callable[..., Person]
) -> None:
    account(gateway.launched, "olga", "--group", "ops")
    olga = someone(viewport={"width": 1280, "height": 800})
    olga.opens(f"{gateway.base}/console/sign-in")
    olga.sees("Sign in to the console")
    olga.keeps("console-sign-in-with-an-account")
    olga.page.get_by_role("link", name="Sign in with your account", exact=True).click()
    signs_in(olga, "olga")
    assert "The console of Toolbus" in olga.sees("Allow this program?").inner_text()
    olga.keeps("console-consent")
    olga.presses("Allow")
    olga.sees("Overview")
    assert "viewer" in (olga.page.locator("form.person").text_content() or "")
    olga.presses("Sign out")
    olga.sees("Sign in to the console")
    assert olga.complaints == []


def test_a_newcomer_creates_a_key_and_watches_its_calls(
    gateway: Gateway, someone: Callable[..., Person]
) -> None:
    person = someone()
    enters(person, gateway)
    person.opens(f"{gateway.base}/console/keys/add")
    person.fills(Name="newcomer", Tools="echo__say")
    person.presses("Create")
    person.sees("Secret of newcomer")
    secret = person.page.get_by_label("Secret").input_value()
    person.keeps("console-secret")
    person.opens(f"{gateway.base}/console/live?key=newcomer")
    person.page.get_by_text("Watching").wait_for()
    client = gateway.launched.client(secret)
    client.call("echo__say", {"text": "hello"})
    client.call("docs__read", {})
    rows = person.page.locator("#live tbody tr")
    rows.filter(has_text="completed").wait_for()
    rows.filter(has_text="denied").wait_for()
    person.keeps("console-live-calls")


def test_the_search_of_a_list_needs_no_button(
    gateway: Gateway, someone: Callable[..., Person]
) -> None:
    person = someone()
    enters(person, gateway)
    person.opens(f"{gateway.base}/console/keys")
    person.page.get_by_role("link", name="root", exact=True).wait_for()
    person.page.get_by_label("Search by name").press_sequentially("bo")
    person.page.get_by_role("link", name="root", exact=True).wait_for(state="detached")
    person.page.get_by_role("link", name="boss", exact=True).wait_for()
    assert person.complaints == []


def test_an_approver_decides_in_the_console(
    gateway: Gateway, someone: Callable[..., Person]
) -> None:
    waiting = gateway.launched.client(BOT).call(
        "echo__say", {"text": "\u202edecided in the console"}
    )
    assert waiting.code == "approval_required"
    approval = str(waiting.error["data"]["page"]).rpartition("/")[2]
    person = someone(viewport={"width": 360, "height": 740})
    enters(person, gateway)
    person.opens(f"{gateway.base}/console/approvals/{approval}")
    assert "\\u{202e}decided" in person.sees("Approve this call?").inner_text()
    person.keeps("console-approval")
    person.presses("Approve once")
    person.sees("Approvals")
    assert person.page.locator(f'a[href$="{approval}"]').count() == 0


def test_a_rule_is_checked_and_replayed_before_it_applies(
    gateway: Gateway, someone: Callable[..., Person]
) -> None:
    gateway.launched.client(ROOT).call("echo__say", {"path": "/etc/hosts"})
    person = someone(color_scheme="dark", viewport={"width": 1280, "height": 800})
    enters(person, gateway)
    person.opens(f"{gateway.base}/console/rules/edit")
    wrong = "forbid(principal, action, resource)\nwhen { foo bar };\npermit(principal);"
    person.fills(Name="quiet", Cedar=wrong)
    person.presses("Check and replay")
    person.page.get_by_role("heading", name="The text with its mistakes").wait_for()
    assert person.page.locator(".code .mistake").count() >= 2
    person.keeps("console-rule-mistakes")
    person.fills(Cedar='forbid(principal, action, resource == Tool::"echo__say");')

    def replayed() -> bool:
        with person.page.expect_navigation():
            person.presses("Check and replay")
        person.page.get_by_role("heading", name="What would change").wait_for()
        return person.page.locator(".outcomes .bad").count() == 1

    until_blocking(replayed, "the call is recorded")
    person.keeps("console-rule-replay")
    person.page.set_viewport_size({"width": 360, "height": 800})
    person.keeps("console-rule-replay-360")
    assert not person.overflows
    person.presses("Apply this rule")
    person.sees("Rules")
    person.page.get_by_role("link", name="quiet", exact=True).click()
    person.sees("Rule quiet")
    person.page.on("dialog", lambda dialog: dialog.accept())
    person.presses("Delete")
    person.page.get_by_role("link", name="paths", exact=True).wait_for()
    assert person.page.get_by_role("link", name="quiet", exact=True).count() == 0
