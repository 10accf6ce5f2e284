"""The console through HTTP: sign-in, roles, forms, hostile names, and the live view."""

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from urllib.parse import quote, urlsplit

import pytest

from harness.clients.admin_client import at, named
from harness.clients.console_browser import base_of, sends, shows, signed_in_with
from harness.clients.form_browser import Browser, Page
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking
from toolbus_common.admin_api.roles import ROLES, may

SECRETS: dict[str, str] = {role: f"tba_{role}_e2e-secret-of-the-console-1" for role in ROLES}
BOT = "tbk_bot_e2e-secret-of-the-console-01"
HOSTILE = "<img src=x onerror=alert(1)>"
PAGES = {
    "": None, "overview?period=week": None, "overview?period=x": None, "live": "calls",
    "health": "read", "calls": "audit", "calls/sql": None, "servers/fresh": "read",
    "calls/nothing": "audit", "approvals": "approvals", "servers": "read", "servers/echo": "read",
    "keys": "read", "keys/bot": "read", "budgets": "budgets", "rules": "read",
    "keys/bot/explain?call=echo__say": "budgets", "servers/echo/tools": "read",
    "servers/echo/tools/try?tool=say": "read",
    "analytics": "audit", "analytics/spend-by-day": "audit", "analytics/denials/csv": "audit",
    "audit": "audit", "audit/evidence": "audit", "audit/erasures": None, "models": "read",
    "guards": "budgets", "runs": "read", "settings": "read", "settings?since=x": "read",
    "entries/prices": "read", "rules/edit": "read", "configuration": "read",
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run Toolbus in front of one server, with an admin key for each role."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    launched = Launched(tmp_path_factory.mktemp("console"))
    document = {
        "servers": {"echo": {"url": echo.url}, "fresh": {"url": echo.url, "definitions": "each"}},
        "teams": {"support": {}},
        "prices": {HOSTILE: 0.5},
        "keys": {"bot": {"secret": BOT, "tools": ["*"], "budget": {"usd": 5, "per": "day"}}},
        "admins": {role: {"role": role, "secret": secret} for role, secret in SECRETS.items()},
    }
    with echo.running(), launched.running(document):
        launched.until_listed(launched.client(BOT), "echo__say")
        yield launched


def signed_in(gateway: Launched, role: str = "admin") -> Browser:
    """Return a browser that is signed in with the admin key of a role."""
    return signed_in_with(gateway, SECRETS[role])


# -- sign-in --------------------------------------------------------------------------------------


def test_a_link_signs_in_one_browser_once_and_its_key_ends_with_the_session(
    gateway: Launched,
) -> None:
    printed = json.loads(gateway.toolbus("console", "--json").stdout)["console"]
    path = urlsplit(printed).path
    first, second = Browser(base_of(gateway)), Browser(base_of(gateway))
    assert first.get(printed).status == 200  # a program that fetches the link does not use it up
    assert first.post(path).location == "/console"
    assert second.post(path).status == 403
    page = shows(first, "")
    name = re.search(r"console-[A-Za-z0-9]+-[0-9a-f]{6}", page.text)
    assert name is not None
    assert sends(first, "sign-out").location == "/console/sign-in"
    states = at(gateway, SECRETS["admin"]).request("GET", "/v1/admins").json["items"]
    assert {"revoked"} == {each["state"] for each in states if each["name"] == name[0]}


def test_the_ready_file_has_a_link(gateway: Launched) -> None:
    browser = Browser(base_of(gateway))
    assert browser.post(urlsplit(gateway.ready["console"]).path).location == "/console"


@pytest.mark.parametrize("path", [*PAGES, "keys/add", "servers/add", "entries/labels/edit"])
def test_a_page_without_a_session_leads_to_the_sign_in(gateway: Launched, path: str) -> None:
    answer = shows(Browser(base_of(gateway)), path)
    assert (answer.status, answer.location) == (303, "/console/sign-in")


@pytest.mark.parametrize("key", ["", BOT, "tba_nobody_no-such-secret-of-an-admin", "\u202e\n"])
def test_only_an_admin_key_signs_in(gateway: Launched, key: str) -> None:
    browser = Browser(base_of(gateway))
    answer = browser.post("/console/sign-in", key=key)
    assert answer.status == 401
    assert "Enter an admin key" in answer.text
    assert not browser.cookies


def test_a_forged_or_changed_cookie_is_no_session(gateway: Launched) -> None:
    browser = signed_in(gateway)
    (name,) = browser.cookies
    sealed = browser.cookies[name]
    for forged in ("", "x", sealed[:-2], sealed.swapcase(), "a" * 5000):
        browser.cookies[name] = forged
        assert shows(browser, "").location == "/console/sign-in"


def test_the_cookie_is_not_for_scripts_and_hides_the_key(gateway: Launched) -> None:
    answer = Browser(base_of(gateway)).post("/console/sign-in", key=SECRETS["viewer"])
    (cookie,) = [value for name, value in answer.headers if name.lower() == "set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert SECRETS["viewer"] not in cookie


def test_a_revoked_key_ends_its_session_at_once(gateway: Launched) -> None:
    admin = at(gateway, SECRETS["admin"])
    made = admin.request("POST", "/v1/admins", {"name": "brief", "role": "viewer"}).json
    browser = Browser(base_of(gateway))
    browser.post("/console/sign-in", key=made["secret"])
    assert shows(browser, "servers").status == 200
    admin.request("POST", "/v1/admins/brief/revoke")
    assert shows(browser, "servers").location == "/console/sign-in"


# -- roles and forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_role_sees_exactly_the_pages_whose_operations_it_may_perform(
    gateway: Launched, role: str
) -> None:
    browser = signed_in(gateway, role)
    for path, right in PAGES.items():
        allowed = right is None or may(role, right)  # type: ignore[arg-type]
        page = shows(browser, path)
        streamed = path == "live"  # its stream refuses, not the page
        assert page.status == (200 if allowed or streamed else 403), path


@pytest.mark.parametrize("role", ROLES)
def test_a_role_changes_exactly_what_the_api_allows(gateway: Launched, role: str) -> None:
    browser = signed_in(gateway, role)
    made = sends(browser, "keys/add", name=f"of-{role}", tools="echo__*", usd="1", per="day")
    assert (made.status == 200) == may(role, "keys")
    assert ("tbk_of-" in made.text) == may(role, "keys")
    saved = sends(browser, "entries/teams/edit", name=f"team-{role}", text="{}")
    assert (saved.status == 303) == may(role, "declare")
    there = at(gateway, SECRETS["admin"]).request("GET", named("teams", f"team-{role}"))
    assert (there.status == 200) == may(role, "declare")


@pytest.mark.parametrize("token", ["", "x" * 32])
def test_a_form_of_another_site_changes_nothing(gateway: Launched, token: str) -> None:
    browser = signed_in(gateway)
    answer = browser.post("/console/keys/add", token=token, name="foreign", tools="*")
    assert answer.status == 403
    assert at(gateway, SECRETS["admin"]).request("GET", named("keys", "foreign")).status == 404


def test_hostile_names_are_shown_as_text_and_each_page_has_a_strict_policy(
    gateway: Launched,
) -> None:
    browser = signed_in(gateway)
    edit = f"entries/prices/edit?name={quote(HOSTILE)}"
    for path in (*PAGES, edit, f"servers?search={quote(HOSTILE)}", f"keys/{quote(HOSTILE)}"):
        page = shows(browser, path)
        assert HOSTILE not in page.text, path
        policy = dict(page.headers)["content-security-policy"]
        nonces = set(re.findall(r"'nonce-([^']+)'", policy))
        assert len(nonces) == 1 or policy == "default-src 'none'; sandbox"
        assert "unsafe" not in policy
        assert set(re.findall(r'nonce="([^"]*)"', page.text)) <= nonces
    assert "&lt;img src=x" in shows(browser, "entries/prices").text


def test_lists_are_searched_and_paged_on_the_server(gateway: Launched) -> None:
    admin, browser = at(gateway, SECRETS["admin"]), signed_in(gateway, "viewer")
    for number in range(55):
        assert admin.request("PUT", named("users", f"person-{number:02}"), {}).status == 201
    first = shows(browser, "entries/users")
    assert ("person-49" in first.text, "person-50" in first.text) == (True, False)
    assert "person-50" in shows(browser, "entries/users?after=person-49").text
    found = shows(browser, "entries/users?search=SON-5").text
    assert ("person-54" in found, "person-45" in found) == (True, False)


# -- changes --------------------------------------------------------------------------------------


def test_pasted_servers_are_added_or_refused_one_by_one(gateway: Launched) -> None:
    browser = signed_in(gateway)
    pasted = {"mcpServers": {"extra": {"url": "https://mcp.example/mcp"}, "run": {"command": "ls"}}}
    page = sends(browser, "servers/add", text=json.dumps(pasted))
    assert page.text.count("not added") == 1
    assert "extra" in shows(browser, "servers").text
    form = {"name": "api", "kind": "openapi", "address": "https://api.example/v1.json"}
    assert sends(browser, "servers/add", **form, held="yes").location == "/console/servers/api"
    value = at(gateway, SECRETS["admin"]).request("GET", named("servers", "api")).json["value"]
    assert value == {"openapi": form["address"], "definitions": "each"}
    reviewed = {**value, "definitions": "review"}  # another word for the same
    for stored in (value, reviewed):
        put = at(gateway, SECRETS["admin"]).request("PUT", named("servers", "api"), stored)
        assert put.status == 200, put.text
        assert "hidden until each is approved" in shows(browser, "servers/api").text
    assert sends(browser, "servers/add", **{**form, "address": ""}).status == 422
    entry = re.search(r"servers/add\?entry=[^\"]+", shows(browser, "servers/add").text)
    assert entry is not None
    assert "As JSON" in shows(browser, entry[0]).text
    for text in ("", "[]", "{", '{"mcpServers": {"x": 1}}', "{}"):
        assert sends(browser, "servers/add", text=text).status == 422


def test_hidden_definitions_of_a_new_server_are_approved_together(gateway: Launched) -> None:
    browser, client = signed_in(gateway), gateway.client(BOT)
    identity = r'name="kind" value="(\w+)">.*?name="name" value="(\w+)">.*?value="(\w{64})"'
    found = until_blocking(
        lambda: re.findall(identity, shows(browser, "servers/fresh").text), "its definitions"
    )
    items = [dict(zip(("kind", "name", "digest"), each, strict=True)) for each in found]
    assert not client.sees("fresh__say")

    def approves(text: str) -> Page:
        return sends(browser, "servers/fresh/definitions", action="approve", shown=text)

    assert approves(json.dumps([{**items[0], "digest": "0" * 64}])).status in (404, 409)
    for malformed in ("{", "1", '[{"kind": "tool"}]', "null"):
        assert approves(malformed).status == 400
    assert approves(json.dumps(items)).status == 303
    gateway.until_listed(client, "fresh__say")


def test_a_key_is_rotated_and_revoked(gateway: Launched) -> None:
    browser = signed_in(gateway, "operator")
    sends(browser, "keys/add", name="brief", tools="echo__say")
    secret = re.search(r"tbk_brief_[\w-]+", sends(browser, "keys/brief/rotate").text)
    assert secret is not None
    gateway.until_listed(gateway.client(secret[0]), "echo__say")
    assert sends(browser, "keys/brief/revoke").status == 303
    assert gateway.client(secret[0]).call("echo__say", {"text": "x"}).status == 401


def test_the_configuration_is_previewed_and_applied_with_its_mistakes_shown(
    gateway: Launched,
) -> None:
    browser = signed_in(gateway)
    page = shows(browser, "configuration")
    etag = re.search(r'name="etag" value="([^"]*)"', page.text)
    text = re.search(r"<textarea[^>]*>(.*)</textarea>", page.text, re.DOTALL)
    assert etag is not None
    assert text is not None
    form = {"etag": unescape(etag[1])}
    new = f"{unescape(text[1])}\nlabels: {{'echo__*': [public]}}\n"
    preview = sends(browser, "configuration", action="preview", text=new, **form)
    assert "Changes, not applied yet" in preview.text
    assert sends(browser, "configuration", action="apply", text=new, **form).status == 303
    stale = sends(browser, "configuration", action="apply", text=new, **form)
    assert stale.status == 412
    wrong = sends(browser, "configuration", action="preview", text="serverz: {}", **form)
    assert "serverz" in wrong.text


# -- recorded calls -------------------------------------------------------------------------------


def test_a_recorded_call_is_found_with_all_its_events(gateway: Launched) -> None:
    gateway.client(BOT).call("echo__say", {"text": "recorded"})
    gateway.eventual_rows("SELECT call_id FROM events WHERE event = 'call.completed'", bool)
    auditor = signed_in(gateway, "auditor")
    listed = shows(auditor, "calls?tool=echo__say&result=completed").text
    found = re.search(r'href="/console/(calls/[^"/?]+)">20', listed)
    assert found is not None
    story = shows(auditor, found[1])
    assert all(each in story.text for each in ("call.allowed", "call.completed", "Timeline"))
    assert "call.completed" not in shows(auditor, "calls?tool=no-such-tool").text
    until_blocking(lambda: "The last 24 hours" in shows(auditor, "").text, "the traffic of a day")


@pytest.mark.parametrize(("role", "status"), [("auditor", 200), ("operator", 403)])
def test_only_roles_that_may_query_events_run_sql(
    gateway: Launched, role: str, status: int
) -> None:
    browser = signed_in(gateway, role)
    page = sends(browser, "calls/sql", sql="SELECT '<b>' AS bold, 41 + 1 AS answer")
    assert page.status == status
    assert ("<td>&lt;b&gt;</td><td>42</td>" in page.text) == (status == 200)
    assert sends(browser, "calls/sql", sql="DROP TABLE events").status == (
        422 if status == 200 else 403
    )


# -- analytics ------------------------------------------------------------------------------------


def test_every_saved_query_has_a_page(gateway: Launched) -> None:
    auditor = signed_in(gateway, "auditor")
    named = re.findall(r'href="/console/analytics/([a-z-]+)"', shows(auditor, "analytics").text)
    listed = at(gateway, SECRETS["auditor"]).request("GET", "/v1/audit/queries").json["items"]
    assert sorted(named) == [each["name"] for each in listed]
    for name in named:
        page = shows(auditor, f"analytics/{name}")
        assert page.status == 200, page.text
        assert "SQL of this query" in page.text
    assert shows(auditor, "analytics/nothing").status == 404


def test_a_saved_query_is_filtered_linked_to_calls_and_downloaded(gateway: Launched) -> None:
    gateway.client(BOT).call("echo__say", {"text": "counted"})
    gateway.client(BOT).call(f"echo__{HOSTILE}", {})
    gateway.eventual_rows("SELECT 1 FROM events WHERE position(tool, 'img') > 0", bool)
    auditor = signed_in(gateway, "auditor")
    page = shows(auditor, "analytics/denials?since=7d&in.tool=IMG")
    assert "&lt;img src=x" in page.text
    assert HOSTILE not in page.text
    assert re.search(r'href="/console/calls\?key=bot&amp;tool=echo__[^"]*&amp;days=7"', page.text)
    assert "No rows" in shows(auditor, "analytics/denials?in.tool=no-such-tool").text
    found = shows(auditor, "analytics/denials/csv?since=7d&in.tool=img")
    assert dict(found.headers)["content-disposition"] == 'attachment; filename="denials.csv"'
    assert found.text.splitlines()[0].startswith("customer,key,server,tool,code,denials")
    assert HOSTILE in found.text
    assert "No rows" in shows(auditor, "analytics/spend-by-key?customer=no+such").text


@pytest.mark.parametrize(
    "query", ["since=never", "in.no_column=1", "in.x;y=1", "in.tool=" + "x" * 300, "least=-1"]
)
def test_a_mistake_in_the_choices_is_shown(gateway: Launched, query: str) -> None:
    page = shows(signed_in(gateway, "auditor"), f"analytics/slowest-tools?{query}")
    assert page.status in (400, 422)
    assert 'role="alert"' in page.text


def test_rows_of_sql_are_downloaded(gateway: Launched) -> None:
    found = sends(signed_in(gateway, "auditor"), "calls/sql", sql="SELECT 42 AS n", action="csv")
    assert found.text.splitlines() == ["n", "42"]


# -- the live view --------------------------------------------------------------------------------


def streamed(gateway: Launched, path: str, headers: dict[str, str]) -> Iterator[dict[str, object]]:
    """Yield the events of a stream."""
    target = urlsplit(base_of(gateway))
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
    with closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        yield {}
        while line := response.readline():
            if line.startswith(b"data: "):
                yield from json.loads(line.removeprefix(b"data: "))["events"]


@pytest.mark.parametrize("path", ["/api/v1/live", "/console/live/events"])
def test_calls_are_shown_as_they_happen(gateway: Launched, path: str) -> None:
    browser = signed_in(gateway, "viewer")
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    headers = {"Authorization": f"Bearer {SECRETS['viewer']}"} if "api" in path else {}
    headers |= {"Cookie": cookies} if "console" in path else {}
    stream = streamed(gateway, f"{path}?tool=echo__", headers)
    next(stream)
    client = gateway.client(BOT)
    client.call("echo__say", {"text": "a-secret-argument"})
    client.call("echo__no_such_tool", {})
    seen: list[dict[str, object]] = []
    while not {"call.completed", "call.denied"} <= {str(each["event"]) for each in seen}:
        seen.append(next(stream))
    assert {each["key"] for each in seen} == {"bot"}
    assert "a-secret-argument" not in json.dumps(seen)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/v1/live", {}, 401),
        ("/api/v1/live", {"Authorization": f"Bearer {BOT}"}, 401),
        ("/console/live/events", {}, 401),
        ("/console/live/events", {"Authorization": f"Bearer {SECRETS['admin']}"}, 401),
        ("/api/v1/live?nonsense=1", {"Authorization": f"Bearer {SECRETS['admin']}"}, 400),
        ("/api/v1/live?result=good", {"Authorization": f"Bearer {SECRETS['admin']}"}, 400),
    ],
)
def test_invalid_requests_for_the_stream_of_events_are_refused(
    gateway: Launched, path: str, headers: dict[str, str], status: int
) -> None:
    target = urlsplit(base_of(gateway))
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
    with closing(connection):
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().status == status


@pytest.mark.parametrize(
    "name", ["console.css", "console.js", "htmx.min.js", "icon.svg", "none.js", "..%2fsession.py"]
)
def test_files_are_served_and_no_others(gateway: Launched, name: str) -> None:
    answer = Browser(base_of(gateway)).get(f"{base_of(gateway)}/console/static/{name}")
    assert answer.status == (404 if name.startswith(("none", "..")) else 200)
