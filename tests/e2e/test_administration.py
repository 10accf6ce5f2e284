"""Administration over HTTP: roles, entries, the whole configuration, keys and change events."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clients.admin_client import Administrator, at, named, why
from harness.clients.admin_operations import AdminOperation, admin_operations
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking
from toolbus_cli import runner
from toolbus_common.admin_api.models import KINDS
from toolbus_common.admin_api.roles import ROLES

SECRETS: dict[str, str] = {role: f"tba_{role}_e2e-secret-of-administration" for role in ROLES}
BOT = "tbk_bot_e2e-secret-of-administration"
HEADER = "canary-of-a-header"
TOOL = "echo__say"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run Toolbus in front of one server, with an admin key for each role."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    launched = Launched(tmp_path_factory.mktemp("administered"))
    with (
        echo.running(),
        launched.running(
            {
                "servers": {"echo": {"url": echo.url, "headers": {"X-Canary": HEADER}}},
                "teams": {"support": {}},
                "keys": {"bot": {"secret": BOT, "tools": ["*"]}},
                "admins": {
                    role: {"role": role, "secret": secret} for role, secret in SECRETS.items()
                },
            }
        ),
    ):
        launched.until_listed(launched.client(BOT), TOOL)
        yield launched


@pytest.fixture
def admin(gateway: Launched) -> Administrator:
    return at(gateway, SECRETS["admin"])


def changed(gateway: Launched, kind: str, name: str, enough: int = 1) -> list[dict[str, Any]]:
    """Return the change events of one entry, oldest first."""
    rows = gateway.eventual_rows(
        "SELECT detail, JSONExtractString(detail, 'name') AS name FROM events "
        f"WHERE event = 'config.changed' AND JSONExtractString(detail, 'kind') = '{kind}' "
        f"AND name IN ('{name}', person('{name}')) ORDER BY stream_seq, line",
        lambda rows: len(rows) >= enough,
    )
    return [json.loads(row["detail"]) for row in rows]


# -- roles ----------------------------------------------------------------------------------------


def path_of(operation: AdminOperation) -> str:
    """Return the path of an operation on an entry that does not exist."""
    name = "0" * 32 if "approvals" in operation.path else "nobody"
    return operation.path.removeprefix("/api").replace("{name}", name)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_allows_exactly_its_operations(gateway: Launched, role: str) -> None:
    administrator = at(gateway, SECRETS[role])
    for operation in admin_operations():
        body = {"not": "wanted"} if operation.has_body else None
        answer = administrator.request(operation.method, path_of(operation), body)
        assert (answer.status != 403) == (role in operation.roles), (operation.id, answer.body)
        assert answer.status != 401


def test_every_operation_requires_a_valid_admin_key(gateway: Launched) -> None:
    for secret in ("", "tba_nobody_at-all-but-long-enough", BOT):
        for operation in admin_operations():
            answer = at(gateway, secret).request(operation.method, path_of(operation))
            assert (answer.status, why(answer)) == (401, "unauthorized"), operation.id
            assert "www-authenticate" in answer.headers


def test_an_admin_key_cannot_call_a_tool(gateway: Launched) -> None:
    assert gateway.client(SECRETS["admin"]).call(TOOL, {"text": "x"}).status == 401


def test_a_revoked_admin_key_is_rejected(gateway: Launched, admin: Administrator) -> None:
    created = admin.request("POST", "/v1/admins", {"name": "temporary", "role": "viewer"})
    assert created.status == 201, created.body
    temporary = admin.as_(created.json["secret"])
    until_blocking(lambda: temporary.request("GET", "/v1/self").status == 200, "the key is known")
    assert temporary.request("GET", "/v1/self").json["role"] == "viewer"
    assert admin.request("POST", "/v1/admins/temporary/revoke").status == 200
    until_blocking(lambda: temporary.request("GET", "/v1/self").status == 401, "the key ends")
    before, after = changed(gateway, "admins", "temporary", 2)
    assert (before["by"], after["by"]) == ("admin:admin", "admin:admin")
    assert json.loads(after["after"])["revoked"] is True
    assert created.json["secret"] not in str((before, after))


# -- entries --------------------------------------------------------------------------------------


def test_creating_replacing_and_deleting_an_entry_each_emit_an_event(
    gateway: Launched, admin: Administrator
) -> None:
    path = named("teams", "sales")
    created = admin.request("PUT", path, {"tools": ["echo__*"]})
    assert (created.status, created.json["value"]) == (201, {"tools": ["echo__*"]}), created.body
    replaced = admin.request("PUT", path, {"deny": ["echo__say"]}, If_Match=created.headers["etag"])
    assert (replaced.status, replaced.json["value"]) == (200, {"deny": ["echo__say"]})
    assert admin.request("PUT", path, {}, If_Match=created.headers["etag"]).status == 412
    assert admin.request("DELETE", path).status == 204
    assert why(admin.request("GET", path)) == "unknown_entry"
    events = changed(gateway, "teams", "sales", 3)
    assert [bool(event["before"]) for event in events] == [False, True, True]
    assert json.loads(events[1]["before"])["tools"] == ["echo__*"]
    assert json.loads(events[1]["after"])["deny"] == ["echo__say"]
    assert events[2]["after"] == ""


def test_a_price_is_named_by_a_pattern_with_a_slash(admin: Administrator) -> None:
    path = named("prices", "echo__file:///a/*")
    assert admin.request("PUT", path, 0.5).status == 201
    assert admin.request("GET", path).json["value"] == 0.5
    assert admin.request("DELETE", path).status == 204


def test_an_entry_that_others_refer_to_is_not_deleted(admin: Administrator) -> None:
    assert admin.request("PUT", named("groups", "held"), {"tools": ["*"]}).status == 201
    assert admin.request("PUT", named("teams", "support"), {"groups": ["held"]}).status == 200
    answer = admin.request("DELETE", named("groups", "held"))
    assert (answer.status, why(answer)) == (422, "invalid_configuration")
    assert answer.json["errors"][0]["location"] == "teams.support.groups.0"
    assert admin.request("GET", named("groups", "held")).status == 200


def test_the_api_rejects_commands_and_environment_variables(admin: Administrator) -> None:
    for server in (
        {"command": ["sh", "-c", "true"]},
        {"url": "https://collector.example/mcp", "headers": {"X": "${env:HOME}"}},
    ):
        answer = admin.request("PUT", named("servers", "far"), server)
        assert (answer.status, why(answer)) == (403, "forbidden")
        assert admin.request("GET", named("servers", "far")).status == 404


def test_a_credential_is_neither_shown_nor_moved_to_another_url(
    gateway: Launched, admin: Administrator
) -> None:
    path = named("servers", "echo")
    current = admin.request("GET", path)
    assert current.json["value"]["headers"] == {"X-Canary": "(set)"}
    updated = admin.request("PUT", path, {**current.json["value"], "timeout": 20.0})
    assert updated.status == 200, updated.body
    moved = {**current.json["value"], "url": "https://collector.example/mcp"}
    assert why(admin.request("PUT", path, moved)) == "invalid_configuration"
    events = changed(gateway, "servers", "echo", 2)
    assert HEADER not in str(events)
    assert HEADER not in gateway.logs()


# -- the whole configuration -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_applying_an_exported_configuration_changes_nothing(
    admin: Administrator, form: str
) -> None:
    declared, etag = admin.declared()
    exported = admin.request("GET", "/v1/configuration?format=yaml")
    assert exported.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(exported.body) == declared
    body: Any = exported.body.decode() if form == "yaml" else declared
    applied = admin.request("PUT", "/v1/configuration", body, If_Match=etag)
    assert (applied.status, applied.json["changes"]) == (200, []), applied.body
    assert SECRETS["admin"] not in exported.body.decode()


def test_exactly_one_of_many_concurrent_applies_succeeds(admin: Administrator) -> None:
    declared, etag = admin.declared()

    def apply(number: int) -> int:
        new = {**declared, "users": {f"racer{number}": {}}}
        return admin.request("PUT", "/v1/configuration", new, If_Match=etag).status

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(apply, range(8)))
    assert statuses == [200, *[412] * 7]
    assert len(admin.declared()[0]["users"]) == 1


def test_one_invalid_entry_rejects_the_whole_configuration(admin: Administrator) -> None:
    declared, etag = admin.declared()
    new = {**declared, "users": {"good": {}, "bad": {"customer": "nobody"}}}
    for body in (new, yaml.safe_dump(new)):
        answer = admin.request("PUT", "/v1/configuration", body, If_Match=etag)
        assert (answer.status, why(answer)) == (422, "invalid_configuration")
        assert answer.json["errors"][0]["location"] == "users.bad.customer"
    assert admin.declared() == (declared, etag)


def test_replacing_the_whole_configuration_requires_if_match(admin: Administrator) -> None:
    declared, etag = admin.declared()
    assert admin.request("PUT", "/v1/configuration", declared).status == 428
    new = {**declared, "rules": {"late": {"cedar": "forbid (principal, action, resource);"}}}
    reply = admin.request("PUT", "/v1/configuration?dry_run=true", new)
    assert reply.status == 200, reply.body
    assert [(c["sign"], c["kind"], c["name"]) for c in reply.json["changes"]] == [
        ("+", "rules", "late")
    ]
    assert admin.declared() == (declared, etag)


# -- keys, budgets, approvals and sign-in ----------------------------------------------------------


def test_an_operator_creates_changes_rotates_and_revokes_a_key(gateway: Launched) -> None:
    operator = at(gateway, SECRETS["operator"])
    created = operator.request("POST", "/v1/keys", {"name": "made", "tools": ["echo__*"]})
    assert created.status == 201, created.body
    secret = created.json["secret"]
    until_blocking(lambda: gateway.client(secret).sees(TOOL), "the key is valid")
    again = operator.request("POST", "/v1/keys", {"name": "made"})
    assert (again.status, why(again)) == (409, "conflict")
    changed_key = operator.request("PUT", "/v1/keys/made", {"tools": ["other__*"]})
    assert changed_key.json["value"] == {"tools": ["other__*"]}
    until_blocking(lambda: gateway.client(secret).tools() == [], "the key sees nothing")
    rotated = operator.request("POST", "/v1/keys/made/rotate").json["secret"]
    until_blocking(
        lambda: gateway.client(rotated).call(TOOL, {"text": "x"}).status == 200,
        "the rotated key is valid",
    )
    until_blocking(
        lambda: gateway.client(secret).call(TOOL, {"text": "x"}).status == 401,
        "the old key is invalid",
    )
    assert operator.request("POST", "/v1/keys/made/revoke").json["state"] == "revoked"
    until_blocking(
        lambda: gateway.client(rotated).call(TOOL, {"text": "x"}).status == 401,
        "the revoked key is invalid",
    )
    events = changed(gateway, "keys", "made", 4)
    assert {event["by"] for event in events} == {"admin:operator"}
    for canary in (secret, rotated):
        assert canary not in str(events)
        assert canary not in gateway.logs()


def test_a_list_is_returned_page_by_page(admin: Administrator) -> None:
    for name in ("page-a", "page-b", "page-c"):
        assert admin.request("PUT", named("labels", name), ["x"]).status == 201
    first = admin.request("GET", "/v1/labels?limit=2").json
    second = admin.request("GET", f"/v1/labels?limit=2&after={first['next']}").json
    assert [item["name"] for item in first["items"]] == ["page-a", "page-b"]
    assert [item["name"] for item in second["items"]] == ["page-c"]
    assert second["next"] is None


def test_a_viewer_reads_the_budgets(gateway: Launched) -> None:
    reply = at(gateway, SECRETS["viewer"]).request("GET", "/v1/budgets")
    assert (reply.status, reply.json["lost"]) == (200, {})


def test_an_operator_approves_a_call(gateway: Launched, admin: Administrator) -> None:
    terms = {"name": "careful", "tools": ["*"], "approve": [TOOL]}
    secret = admin.request("POST", "/v1/keys", terms).json["secret"]
    client = gateway.client(secret)
    until_blocking(lambda: client.sees(TOOL), "the key is valid")
    refused = client.call(TOOL, {"text": "wait"})
    approval = refused.error["data"]["approval"]
    operator = at(gateway, SECRETS["operator"])
    waiting = operator.request("GET", "/v1/approvals").json["approvals"]
    assert approval in [each["id"] for each in waiting]
    done = operator.request("POST", f"/v1/approvals/{approval}/approve", {"note": "Fine."})
    assert (done.status, done.json["by"]) == (200, "admin:operator"), done.body
    assert client.call(TOOL, {"text": "wait"}).text == "wait"


def test_the_configuration_is_read_and_applied_from_another_machine(
    gateway: Launched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TOOLBUS_CONTEXT", "")
    monkeypatch.setattr(logging.root, "setLevel", lambda _level: None)
    monkeypatch.chdir(tmp_path)

    def toolbus(*words: str) -> tuple[int, str, str]:
        code = runner.main(words)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    (tmp_path / "key").write_text(SECRETS["admin"])
    base = gateway.ready["endpoint"].removesuffix("/mcp")
    added = toolbus("context", "add", "far", base, "--key-file", "key")
    assert added == (0, "Added the context 'far' with the role admin.\n", "")
    shown = toolbus("--context", "far", "get")[1]
    assert shown == gateway.toolbus("get").stdout
    document = yaml.safe_load(shown)
    servers = yaml.safe_load(toolbus("--context", "far", "get", "servers", "echo")[1])
    assert servers == {"servers": {"echo": document["servers"]["echo"]}}
    document["teams"]["far"] = {}
    (tmp_path / "toolbus.yaml").write_text(yaml.safe_dump(document))
    apply = ("--context", "far", "apply", "-f", "toolbus.yaml", "--yes")
    assert toolbus(*apply, "--dry-run") == (0, "+ teams.far\n", "")
    assert toolbus(*apply)[1].startswith("+ teams.far\nApplied as revision ")
    assert toolbus(*apply)[1] == "No differences.\nNothing to apply.\n"
    (event,) = changed(gateway, "teams", "far")
    assert event["by"] == "admin:admin"
    terms = ("--tools", "echo__*", "--team", "far", "--budget", "20/day", "--rate", "600/minute")
    secret = json.loads(toolbus("--context", "far", "keys", "create", "away", *terms, "--json")[1])
    client = gateway.client(secret["secret"])
    until_blocking(lambda: client.sees(TOOL), "the key is valid")
    rows = toolbus("--context", "far", "keys", "list", "--json")[1]
    assert json.loads(rows) == json.loads(gateway.toolbus("keys", "list", "--json").stdout)
    assert '"away"' in rows
    assert toolbus("--context", "far", "keys", "rotate", "away")[0] == 0
    revoked = toolbus("--context", "far", "keys", "revoke", "away")
    assert revoked == (0, "Revoked the key 'away'.\n", "")
    document["teams"]["far"] = {"tool": []}
    (tmp_path / "toolbus.yaml").write_text(yaml.safe_dump(document))
    code, _, error = toolbus(*apply)
    assert (code, error.startswith("teams.far.tool: ")) == (1, True)


def test_a_change_made_with_the_cli_is_an_event_with_its_operator(gateway: Launched) -> None:
    created = gateway.toolbus("keys", "create", "typed", "--tools", "echo__*", "--json")
    secret = json.loads(created.stdout)["secret"]
    (event,) = changed(gateway, "keys", "typed")
    assert event["by"]
    assert not event["by"].startswith("admin:")
    assert secret not in str(event)
    assert json.loads(event["after"])["tools"] == ["echo__*"]


def test_the_cli_erases_an_operator_unless_a_legal_hold_prevents_it(gateway: Launched) -> None:
    assert gateway.toolbus("keys", "create", "last", "--tools", "echo__*").returncode == 0
    (event,) = changed(gateway, "keys", "last")
    name = event["by"]
    assert name.startswith("operator:")
    assert gateway.toolbus("audit", "hold", "add", "default", "--why", "case 17").returncode == 0
    held = json.loads(gateway.toolbus("audit", "hold", "list", "--json").stdout)
    assert [(each["customer"], each["by"], each["why"]) for each in held] == [
        ("default", name, "case 17")
    ]
    refused = gateway.toolbus("audit", "forget", name, "--yes")
    assert (refused.returncode, "under a legal hold" in refused.stderr) == (1, True)
    assert gateway.toolbus("audit", "hold", "remove", "default").returncode == 0
    done = gateway.toolbus("audit", "forget", name, "--yes", "--reason", "they left")
    assert (done.returncode, "Erased '" in done.stdout) == (0, True), done.stderr
    (event,) = changed(gateway, "keys", "last")
    assert event["by"].startswith("~")


def test_issuers_and_access_rules_are_configured_one_by_one(
    gateway: Launched, admin: Administrator
) -> None:
    issuer, rule = {"url": "https://login.example", "client_id": "c"}, {"issuer": "corp"}
    lost = admin.request("PUT", named("access", "zed"), rule)
    assert (lost.status, why(lost)) == (422, "invalid_configuration")
    secret = {**issuer, "secret": "${env:HOME}"}
    assert admin.request("PUT", named("issuers", "corp"), secret).status == 403
    inside = {**issuer, "url": "http://127.0.0.1:9"}
    assert admin.request("PUT", named("issuers", "corp"), inside).status == 403
    assert admin.request("PUT", named("issuers", "corp"), issuer).status == 201
    for name in ("zed", "alf"):
        created = admin.request("PUT", named("access", name), {**rule, "role": "viewer"})
        assert (created.status, created.json["value"]["role"]) == (201, "viewer"), created.body
    assert list(admin.declared()[0]["access"]) == ["zed", "alf"], "a new rule is the last"
    assert at(gateway, SECRETS["operator"]).request("DELETE", named("access", "alf")).status == 403
    assert admin.request("DELETE", named("issuers", "corp")).status == 422, "rules name it"
    for kind, name in (("access", "zed"), ("access", "alf"), ("issuers", "corp")):
        assert admin.request("DELETE", named(kind, name)).status == 204
    first, last = changed(gateway, "access", "zed", 2)
    assert (first["by"], last["after"]) == ("admin:admin", "")


def test_the_api_serves_every_kind_of_entry() -> None:
    served = {operation.path.split("/")[3] for operation in admin_operations()}
    assert {*KINDS, "keys", "admins"} <= served
