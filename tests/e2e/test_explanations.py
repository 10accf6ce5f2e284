"""Explanations agree with the calls: each level, rule, limit and state of a key, tool or model."""

import json
import re
from collections.abc import Iterator
from html import unescape
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness.clients.admin_client import at, why
from harness.clients.form_browser import Browser, Page
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.models.mock_provider import MockProvider
from harness.services.guarded import TOKEN
from harness.waits import until_blocking

SECRET = "tbk_{}_e2e-secret-of-explanations"
ADMIN = "tba_root_e2e-secret-of-explanations"
NAMES_OF_OPENAI = {"model_not_found": "unknown_model", "insufficient_quota": "budget_exceeded"}
ONE_CALL = {"calls": 1, "per": "day"}
KEYS: dict[str, dict[str, Any]] = {
    "bot": {"tools": ["*"], "models": ["*"]},
    "narrow": {"tools": ["other__*"]},
    "barred": {"tools": ["*"], "deny": ["echo__*"]},
    "grouped": {"groups": ["readers"]},
    "orphan": {"tools": ["*"], "team": "closed"},
    "limited": {"tools": ["*"], "user": "ann"},
    "poor": {"tools": ["*"], "budget": ONE_CALL},
    "shared": {"tools": ["*"], "team": "poor"},
    "billed": {"tools": ["*"], "team": "billed"},
    "priced": {"tools": ["*"], "models": ["*"], "budget": {"usd": 0.001, "per": "day"}},
    "fast": {"tools": ["*"], "rate": {"calls": 1, "per": "day"}},
    "looping": {"tools": ["*"], "loop": {"calls": 1, "seconds": 600}},
    "careful": {"tools": ["*"], "approve": ["echo__*"]},
    "guarded": {"tools": ["*"], "guards": ["letters"]},
    "revoked": {"tools": ["*"]},
    "expired": {"tools": ["*"], "expires": "2020-01-01"},
    "unmodelled": {"tools": ["*"]},
    "european": {"tools": ["*"], "models": ["*"], "model_regions": ["eu"]},
}
SAY = "echo__say"
HOSTILE = "<img src=x onerror=alert(1)>"
FORBIDDEN = (
    'forbid(principal, action == Action::"tools/call", resource == Tool::"echo__say") when {'
    ' context.arguments has text && context.arguments.text like "/etc*" };'
)
ASKED = 'forbid(principal, action, resource == Tool::"echo__push_branch");'
# key, name, arguments, and the number of calls after which the explanation is compared
CASES: list[tuple[str, str, dict[str, Any], int]] = [
    ("bot", SAY, {"text": "hello"}, 1),
    ("bot", SAY, {"text": "/etc/passwd"}, 1),
    ("bot", "echo__push_branch", {}, 1),
    ("bot", "echo__nothing", {}, 1),
    ("bot", "nowhere__say", {}, 1),
    ("bot", "say", {}, 1),
    ("bot", "new__say", {}, 1),
    ("bot", "hidden__say", {}, 1),
    ("bot", "hidden__count", {}, 1),
    ("bot", "hidden__speak", {}, 1),
    ("bot", "hidden__wait", {}, 1),
    ("narrow", SAY, {}, 1),
    ("barred", SAY, {}, 1),
    ("grouped", SAY, {}, 1),
    ("grouped", "echo__count", {"id": "1"}, 1),
    ("orphan", SAY, {}, 1),
    ("limited", SAY, {}, 1),
    ("poor", SAY, {}, 2),
    ("shared", SAY, {}, 2),
    ("billed", SAY, {}, 2),
    ("priced", "echo__count", {}, 1),
    ("fast", SAY, {}, 2),
    ("looping", SAY, {"text": "again"}, 2),
    ("careful", SAY, {}, 1),
    ("guarded", SAY, {"text": TOKEN}, 1),
    ("guarded", SAY, {"text": "hello"}, 1),
    ("revoked", SAY, {}, 1),
    ("expired", SAY, {}, 1),
    ("bot", "swift", {}, 1),
    ("bot", "mock/mock", {}, 1),
    ("bot", "mock/mock", {"max_tokens": 7}, 1),
    ("unmodelled", "mock/mock", {}, 1),
    ("unmodelled", "swift", {}, 1),
    ("european", "swift", {}, 1),
    ("priced", "mock/mock", {"max_tokens": 5000}, 1),
    ("bot", "nothing/mock", {}, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run a gateway with a key for each way in which a call can be denied."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    mock = MockProvider(tmp_path_factory.mktemp("mock"))
    launched = Launched(tmp_path_factory.mktemp("explanations"))
    keys = {name: {"secret": SECRET.format(name), **terms} for name, terms in KEYS.items()}
    document = {
        "servers": {
            "echo": {"url": echo.url},
            "new": {"url": echo.url, "definitions": "each"},
            "hidden": {
                "url": echo.url,
                "expose": ["say", "count"],
                "tools": {"say": {"hidden": True}, "count": {"alias": "speak"}},
            },
        },
        "providers": {"mock": {"kind": "openai", "url": mock.url, "models": ["mock"]}},
        "models": {"swift": [{"provider": "mock", "model": "mock"}]},
        "model_prices": {"mock/*": {"input": 1, "output": 2}},
        "customers": {"acme": {"budget": ONE_CALL}},
        "teams": {
            "closed": {"tools": []},
            "poor": {"budget": ONE_CALL},
            "billed": {"customer": "acme"},
        },
        "users": {"ann": {"deny": ["echo__say"]}},
        "groups": {"readers": {"tools": ["echo__*"], "deny": ["echo__count"]}},
        "prices": {"echo__count": 2},
        "rules": {
            "etc": {"cedar": FORBIDDEN, "reason": "Read something else."},
            "pushes": {"cedar": ASKED, "effect": "approve", "reason": "A person reads it."},
        },
        "guards": {"letters": {"kind": "secrets", "on": ["arguments"], "action": "block"}},
        "keys": keys,
        "admins": {"root": {"role": "admin", "secret": ADMIN}},
    }
    with echo.running(), mock.running(), launched.running(document):
        launched.until_listed(launched.client(SECRET.format("bot")), SAY)
        revoked = launched.toolbus("keys", "revoke", "revoked")
        assert revoked.returncode == 0, revoked.stderr
        until_blocking(lambda: result(launched, "bot", "new__say")["step"] == "quarantine", "new")
        until_blocking(lambda: result(launched, "revoked", SAY)["code"] == "unauthorized", "gone")
        yield launched


def explained(launched: Launched, key: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Return the explanation of a call."""
    body = {"name": name, "arguments": arguments}
    answer = at(launched, ADMIN).request("POST", f"/v1/keys/{key}/explain", body)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def result(launched: Launched, key: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Return the code of an explanation, and the step that decides; empty for none."""
    found = explained(launched, key, name, **arguments)
    decides = [each["step"] for each in found["steps"] if each["decides"]]
    assert len(decides) == (found["result"] != "allowed"), found
    return {"code": found["code"], "step": "".join(decides), "reason": found["reason"]}


def called(launched: Launched, key: str, name: str, arguments: dict[str, Any]) -> tuple[str, str]:
    """Call a tool or a model; return the code and the message of the error, empty for a success."""
    secret = SECRET.format(key)
    if "/" not in name and name != "swift":
        answer = launched.client(secret).call(name, arguments)
        if answer.status == 401:
            return "unauthorized", ""
        found = answer.json
        return (answer.code, found["error"]["message"]) if "error" in found else ("", "")
    target = urlsplit(launched.ready["endpoint"])
    connection = HTTPConnection(target.hostname or "", target.port, timeout=60)
    body = {"model": name, "messages": [{"role": "user", "content": "hello"}], **arguments}
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    received = json.loads(response.read())
    connection.close()
    if response.status == 200:
        return "", ""
    code = received["error"]["code"]
    return NAMES_OF_OPENAI.get(code, code), received["error"]["message"]


def counted(launched: Launched) -> tuple[Any, ...]:
    """Return the spent and reserved amounts of all budgets."""
    budgets = at(launched, ADMIN).request("GET", "/v1/budgets").json["budgets"]
    return tuple((each["level"], each["spent"], each["reserved"]) for each in budgets)


@pytest.mark.parametrize(("key", "name", "arguments", "calls"), CASES)
def test_an_explanation_is_what_the_call_gets(
    gateway: Launched, key: str, name: str, arguments: dict[str, Any], calls: int
) -> None:
    for _ in range(calls):
        found = result(gateway, key, name, **arguments)
        code, message = called(gateway, key, name, arguments)
        assert found["code"] == code, (found, message)
        if code in ("rule_denied", "budget_exceeded", "guard_blocked"):
            assert found["reason"].split(";")[0] in message
    if calls > 1:
        assert found["code"], "the last call is denied"


@pytest.mark.parametrize(
    ("key", "name", "arguments", "step", "level", "text"),
    [
        ("narrow", SAY, {}, "grant", "key:narrow", "None of its tools matches"),
        ("barred", SAY, {}, "grant", "key:barred", "'echo__*' in 'deny' denies it"),
        ("grouped", "echo__count", {}, "grant", "key:grouped", "of the group 'readers' denies it"),
        ("orphan", SAY, {}, "grant", "team:closed", "None of its tools matches"),
        ("limited", SAY, {}, "grant", "user:ann", "'echo__say' in 'deny' denies it"),
        ("revoked", SAY, {}, "key", "key:revoked", "The key is revoked."),
        ("expired", SAY, {}, "key", "key:expired", "Expired: 2020-01-01"),
        ("bot", "new__say", {}, "quarantine", "server:new", "quarantined"),
        ("bot", "hidden__wait", {}, "grant", "server:hidden", "does not expose it"),
        ("bot", SAY, {"text": "/etc/hosts"}, "rule", "", "The rule 'etc' denies this call"),
        ("bot", "echo__push_branch", {}, "approval", "rule:pushes", "the rule 'pushes' requires"),
        ("careful", SAY, {}, "approval", "key:careful", "'key:careful' requires"),
        ("priced", "echo__count", {}, "budget", "key:priced", "the call reserves $2"),
        ("guarded", SAY, {"text": TOKEN}, "guard", "", "'letters' has the verdict 'blocked'"),
        ("european", "swift", {}, "grant", "key:european", "is not one of: eu"),
        ("unmodelled", "swift", {}, "grant", "key:unmodelled", "None of its models matches"),
    ],
)  # fmt: skip
def test_the_step_that_decides_is_named(
    gateway: Launched, key: str, name: str, arguments: Any, step: str, level: str, text: str
) -> None:
    found = explained(gateway, key, name, **arguments)
    (decides,) = [each for each in found["steps"] if each["decides"]]
    assert (decides["step"], decides["level"]) == (step, level)
    assert text in decides["text"]


def test_nothing_is_counted_recorded_or_sent(gateway: Launched) -> None:
    until_blocking(lambda: not any(each[2] for each in counted(gateway)), "settled")
    before = counted(gateway)
    for key in ("bot", "billed", "poor", "priced", "fast", "looping", "guarded", "careful"):
        for _ in range(2):
            explained(gateway, key, SAY, text="secret words")
    explained(gateway, "bot", "swift")
    assert counted(gateway) == before
    sql = (
        "SELECT countIf(event = 'call.allowed') AS allowed, "
        "countIf(event IN ('call.completed', 'call.failed')) AS ended FROM events"
    )
    gateway.eventual_rows(sql, lambda rows: rows[0]["allowed"] == rows[0]["ended"])


def test_budgets_of_every_level_are_shown_with_what_is_left(gateway: Launched) -> None:
    steps = explained(gateway, "priced", SAY)["steps"]
    assert not [each for each in steps if each["step"] == "budget" and each["details"]]
    (budget,) = [e for e in explained(gateway, "billed", SAY)["steps"] if e["step"] == "budget"]
    assert budget["level"] == "customer:acme"
    assert budget["details"] | {"left": 0, "spent": 0} == {
        "unit": "calls", "limit": 1, "spent": 0, "reserved": 0, "left": 0, "costs": 1,
        "per": "day", "resets_at": budget["details"]["resets_at"], "tools": [],
    }  # fmt: skip


def test_the_command_shows_the_steps_and_its_exit_code(gateway: Launched) -> None:
    done = gateway.toolbus("explain", "bot", SAY, "--arguments", '{"text": "/etc/shadow"}')
    assert done.returncode == 1
    assert "'echo__say' with the key 'bot' is denied (rule_denied)." in done.stdout
    assert "The rule 'etc' denies this call: Read something else." in done.stdout
    allowed = gateway.toolbus("explain", "bot", SAY, "--json")
    assert (allowed.returncode, json.loads(allowed.stdout)["result"]) == (0, "allowed")
    unknown = gateway.toolbus("explain", "nobody", SAY)
    assert unknown.returncode == 1
    assert "'nobody' does not exist in keys" in unknown.stderr


def test_a_key_explains_its_own_calls_and_sees_nothing_of_others(gateway: Launched) -> None:
    def own(key: str, name: str, **arguments: Any) -> Any:
        target = urlsplit(gateway.ready["endpoint"])
        connection = HTTPConnection(target.hostname or "", target.port, timeout=60)
        headers = {"Authorization": f"Bearer {SECRET.format(key)}"}
        body = json.dumps({"name": name, "arguments": arguments})
        headers["Content-Type"] = "application/json"
        connection.request("POST", "/v1/mcp/tools/explain", body, headers)
        response = connection.getresponse()
        received = json.loads(response.read())
        connection.close()
        return received if response.status == 200 else response.status

    assert own("bot", SAY, text="hello")["result"] == "allowed"
    hidden, unknown = own("narrow", SAY), own("narrow", "echo__nothing")
    assert [each["text"] for each in hidden["steps"] if each["decides"]] == [hidden["reason"]]
    for each in (hidden, unknown):
        each["reason"] = each["name"] = each["steps"][-1]["text"] = ""
    assert hidden == unknown, "a tool that is not granted looks like one that does not exist"
    shared = [each for each in own("billed", SAY)["steps"] if "customer" in each["level"]]
    assert not [each for each in shared if each["details"]]
    assert own("bot", SAY, text="/etc/x")["code"] == "rule_denied"
    assert own("revoked", SAY) == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"name": ""}, 400), ({"name": "x" * 600}, 400), ({"name": SAY, "more": 1}, 400)],
)
def test_a_malformed_request_is_rejected(gateway: Launched, body: Any, status: int) -> None:
    answer = at(gateway, ADMIN).request("POST", "/v1/keys/bot/explain", body)
    assert answer.status == status
    assert why(answer) == "invalid"


@pytest.mark.parametrize("name", ["\u202eecho__say", "echo__\n", "__", "a" * 500, "/", "mock/"])
def test_a_strange_name_is_unknown(gateway: Launched, name: str) -> None:
    assert result(gateway, "bot", name)["code"] in ("unknown_tool", "unknown_model")


def test_only_a_key_that_exists_is_explained(gateway: Launched) -> None:
    answer = at(gateway, ADMIN).request("POST", "/v1/keys/nobody/explain", {"name": SAY})
    assert (answer.status, why(answer)) == (404, "unknown_entry")


# -- the console ----------------------------------------------------------------------------------


def signed_in(gateway: Launched) -> Browser:
    """Return a browser that is signed in to the console."""
    browser = Browser(str(gateway.ready["endpoint"]).removesuffix("/mcp"))
    assert browser.post("/console/sign-in", key=ADMIN).status == 303
    return browser


def shown(browser: Browser, path: str) -> Page:
    """Return a page of the console."""
    return browser.get(f"{browser.base}/console/{path}")


def sends(browser: Browser, path: str, **form: str) -> Page:
    """Send a form of the console."""
    token = re.search(r'name="token" value="([^"]*)"', shown(browser, "keys").text)
    assert token is not None
    return browser.post(f"/console/{path}", token=token[1], **form)


def test_a_denial_is_explained_from_the_page_of_its_call(gateway: Launched) -> None:
    gateway.client(SECRET.format("bot")).call("echo__no_such_tool", {})
    denied = "SELECT call_id FROM events WHERE event = 'call.denied' AND tool = 'no_such_tool'"
    (found, *_) = gateway.eventual_rows(denied, bool)
    auditor = signed_in(gateway)
    link = re.search(
        r'href="/console/([^"]+)">Why', shown(auditor, f"calls/{found['call_id']}").text
    )
    assert link is not None
    page = shown(auditor, unescape(link[1]))
    assert "<strong>echo__no_such_tool</strong> is <strong>denied</strong>" in page.text
    assert "has no tool" in page.text


def test_an_explanation_shows_hostile_texts_and_mistakes(gateway: Launched) -> None:
    browser = signed_in(gateway)
    allowed = sends(browser, "keys/bot/explain", call="echo__say", arguments='{"text": "x"}')
    assert "<strong>echo__say</strong> is <strong>allowed</strong>" in allowed.text
    assert "No budget, rate or loop limit counts this call." in allowed.text
    for name in (HOSTILE, f"echo__{HOSTILE}", f"{HOSTILE}/mock"):
        page = sends(browser, "keys/bot/explain", call=name, arguments=json.dumps({"a": HOSTILE}))
        assert HOSTILE not in page.text
        assert "is <strong>denied</strong>" in page.text
    for arguments in ("{", "[]", HOSTILE):
        page = sends(browser, "keys/bot/explain", call="echo__say", arguments=arguments)
        assert page.status in (400, 422)
        assert HOSTILE not in page.text


def field_of(page: Page, label: str) -> str:
    """Return the id of the field with this label."""
    found = re.search(rf'<label for="([^"]+)">{label}', page.text)
    assert found is not None, page.text
    return found[1]


def test_a_tool_is_tried_with_a_form_of_its_schema(gateway: Launched) -> None:
    browser, path = signed_in(gateway), "servers/echo/tools/try"
    assert "tools/try?tool=say" in shown(browser, "servers/echo/tools").text
    page = shown(browser, f"{path}?tool=say")
    text = field_of(page, "text")
    assert "can change or destroy data" in page.text
    form = {"tool": "say", text: HOSTILE, "key": SECRET.format("bot")}
    assert "Confirm that the call" in sends(browser, path, **form).text
    assert sends(browser, path, **{**form, "key": ""}).status == 422
    called = sends(browser, path, **form, confirmed="yes")
    assert "<h2>Result</h2>" in called.text
    assert HOSTILE not in called.text
    assert SECRET.format("bot") not in called.text


def test_a_denied_try_says_why_and_leads_to_its_explanation(gateway: Launched) -> None:
    browser, path = signed_in(gateway), "servers/echo/tools/try"
    text = field_of(shown(browser, f"{path}?tool=say"), "text")
    form = {"tool": "say", text: "/etc/passwd", "key": SECRET.format("bot"), "confirmed": "yes"}
    denied = sends(browser, path, **form)
    assert "The rule &#39;etc&#39; denies this call: Read something else." in denied.text
    link = re.search(r'href="/console/([^"]+)">Why', denied.text)
    assert link is not None
    assert "Each step of the decision" in shown(browser, unescape(link[1])).text
    assert sends(browser, path, **{**form, "key": "tbk_none_of-these-secrets-at-all"}).status == 401
    unknown = sends(browser, path, **{**form, "tool": HOSTILE})
    assert unknown.status == 404
    assert HOSTILE not in unknown.text
    assert shown(browser, "servers/new/tools/try?tool=say").status == 404
