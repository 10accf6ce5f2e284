"""Audit in the console: search, proofs, exports, bundles and legal holds, each by its role."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients.admin_client import at, named
from harness.clients.console_browser import sends, shows, signed_in_with
from harness.clients.form_browser import Browser
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking
from toolbus_common.admin_api.roles import ROLES, may
from toolbus_common.evidence import verify
from toolbus_policy.admin.records.inclusion import proves

SECRETS: dict[str, str] = {role: f"tba_{role}_e2e-secret-of-the-audit-1" for role in ROLES}
BOT = "tbk_bot_e2e-secret-of-the-audit-0001"
HOSTILE = "</pre><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Run Toolbus in front of one server, with one completed call of the customer acme."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    launched = Launched(tmp_path_factory.mktemp("audit"))
    document = {
        "servers": {"echo": {"url": echo.url}},
        "customers": {"acme": {}},
        "teams": {"support": {"customer": "acme"}},
        "keys": {"bot": {"secret": BOT, "team": "support", "tools": ["*"]}},
        "admins": {role: {"role": role, "secret": secret} for role, secret in SECRETS.items()},
    }
    with echo.running(), launched.running(document):
        launched.until_listed(launched.client(BOT), "echo__say")
        launched.client(BOT).call("echo__say", {"text": "recorded"})
        launched.client(BOT).call(f"echo__{HOSTILE}", {})
        yield launched


def signed_in(gateway: Launched, role: str) -> Browser:
    """Return a browser that is signed in with the admin key of a role."""
    return signed_in_with(gateway, SECRETS[role])


def proven(gateway: Launched) -> dict[str, Any]:
    """Return the proofs of the completed call, when its events are signed."""
    rows = gateway.eventual_rows("SELECT call_id FROM events WHERE event = 'call.completed'", bool)
    admin = at(gateway, SECRETS["auditor"])

    def found() -> dict[str, Any] | None:
        answer = admin.request("GET", f"/v1/audit/proofs/{rows[0]['call_id']}")
        shown: dict[str, Any] = answer.json
        return (
            shown if all(each["proven"] for each in shown.get("events", [{"proven": 0}])) else None
        )

    shown = until_blocking(found, "the events of the call are in a checkpoint")
    assert isinstance(shown, dict)
    return shown


def test_the_events_of_a_call_are_proven_by_a_path_that_anyone_can_check(gateway: Launched) -> None:
    found = proven(gateway)
    assert {each["event"] for each in found["events"]} >= {"call.allowed", "call.completed"}
    key = verify.Key(found["key"])
    for each in found["events"]:
        path = list(map(b64decode, each["path"]))
        checkpoint = verify.Checkpoint(each["checkpoint"], key)
        assert checkpoint.size == each["size"]
        assert proves(b64decode(each["leaf_hash"]), each["index"], path, checkpoint)
        assert not proves(bytes(32), each["index"], path, checkpoint)
    page = shows(signed_in(gateway, "auditor"), f"audit/proofs/{found['call']}")
    assert page.text.count('<span class="state good">proven</span>') == len(found["events"])


def test_a_call_that_is_not_stored_has_no_proof(gateway: Launched) -> None:
    page = shows(signed_in(gateway, "auditor"), "audit/proofs/no-such-call")
    assert (page.status, "No event of the call" in page.text) == (404, True)


def test_events_are_found_by_name_key_text_and_person(gateway: Launched) -> None:
    proven(gateway)
    auditor = signed_in(gateway, "auditor")
    assert "call.completed" in shows(auditor, "audit?event=call.*&key=bot&customer=acme").text
    assert "config.applied" in shows(auditor, "audit?event=config").text
    for nothing in ("event=no.such", "key=nobody", "text=no-such-text", "person=nobody"):
        assert "No event matches" in shows(auditor, f"audit?{nothing}").text, nothing
    denied = shows(auditor, "audit?event=call.denied")
    assert HOSTILE not in denied.text
    assert "&lt;img src=x" in denied.text
    injected = shows(auditor, "audit?person=x')+OR+(1=1")
    assert "A person is a name" in injected.text


@pytest.mark.parametrize("form", ["jsonl", "ocsf", "parquet"])
def test_events_are_exported(gateway: Launched, form: str) -> None:
    proven(gateway)
    auditor = signed_in(gateway, "auditor")
    answer = sends(auditor, "audit/export", format=form, events="call.completed", customers="acme")
    assert dict(answer.headers)["content-disposition"] == f'attachment; filename="events.{form}"'
    if form == "jsonl":
        assert {json.loads(line)["event"] for line in answer.text.splitlines()} == {
            "call.completed"
        }
    assert len(answer.text) > 100
    for mistake in ({"days": "many"}, {"format": "csv"}, {"events": "DROP TABLE"}):
        assert 'role="alert"' in sends(auditor, "audit/export", **mistake).text


def test_a_bundle_is_downloaded_and_valid(gateway: Launched, tmp_path: Path) -> None:
    key = proven(gateway)["key"]
    auditor = signed_in(gateway, "auditor")
    assert "acme" in shows(auditor, "audit/evidence").text
    path = tmp_path / "evidence.zip"
    answer = sends(auditor, "audit/bundle", customer="acme")
    path.write_bytes(answer.text.encode(errors="surrogateescape"))
    report = verify.verify(str(path), key)
    assert report.found == []
    assert report.calls == 1
    assert "no checkpoint" in sends(auditor, "audit/bundle", customer="nobody").text


@pytest.mark.parametrize("role", ROLES)
def test_only_a_role_with_the_right_places_a_legal_hold(gateway: Launched, role: str) -> None:
    browser = signed_in(gateway, role)
    holds = at(gateway, SECRETS["auditor"])
    sends(browser, "audit/holds", customer="acme", reason=f"case {HOSTILE}")
    placed = holds.request("GET", "/v1/audit/holds").json["items"]
    assert len(placed) == may(role, "hold")
    if placed:
        assert (placed[0]["customer"], placed[0]["by"]) == ("acme", f"admin:{role}")
        page = shows(browser, "audit/evidence")
        assert HOSTILE not in page.text
        assert "acme" in gateway.toolbus("audit", "hold", "list").stdout
        assert (
            sends(browser, "audit/holds", customer="acme", reason="", action="lift").status == 400
        )
        sends(browser, "audit/holds", customer="acme", reason="closed", action="lift")
        gateway.eventual_rows("SELECT 1 FROM events WHERE event = 'hold.lifted'", bool)
    assert holds.request("GET", "/v1/audit/holds").json["items"] == []
    unknown = sends(browser, "audit/holds", customer="nobody", reason="x")
    assert unknown.status == (404 if may(role, "hold") else 403)


def test_a_change_is_shown_with_its_difference_and_undone(gateway: Launched) -> None:
    admin, browser = at(gateway, SECRETS["admin"]), signed_in(gateway, "admin")
    for environment in ("prod", HOSTILE[:20]):
        admin.request("PUT", named("teams", "undone"), {"environment": environment})
    gateway.eventual_rows(
        "SELECT 1 FROM config_changes WHERE name = 'undone'", lambda r: len(r) > 1
    )
    page = shows(browser, "settings")
    assert HOSTILE[:20] not in page.text
    assert re.search(r'<span class="good">\+ +&#34;environment&#34;: &#34;&lt;/pre', page.text)
    form = {"kind": "teams", "name": "undone", "value": '{"environment": "prod"}'}
    assert sends(browser, "settings/restore", **form).status == 303
    entry = admin.request("GET", named("teams", "undone")).json
    assert entry["value"] == {"environment": "prod"}
    assert sends(browser, "settings/restore", kind="teams", name="undone", value="").status == 303
    assert admin.request("GET", named("teams", "undone")).status == 404
    for wrong in ({"kind": "admins", "name": "admin"}, {**form, "value": "{"}):
        assert sends(browser, "settings/restore", **wrong).status == 422
    assert sends(signed_in(gateway, "viewer"), "settings/restore", **form).status == 403
    assert admin.request("GET", named("teams", "undone")).status == 404


def test_an_earlier_revision_is_compared_then_restored(gateway: Launched) -> None:
    admin, browser = at(gateway, SECRETS["admin"]), signed_in(gateway, "admin")
    admin.request("PUT", named("teams", "kept"), {"environment": HOSTILE[:20]})
    earlier = admin.request("GET", "/v1/configuration").json["revision"]
    admin.request("DELETE", named("teams", "kept"))
    compared = admin.request("GET", "/v1/configuration").json["revision"]
    gateway.eventual_rows("SELECT 1 FROM config_changes WHERE name = 'kept'", lambda r: len(r) > 1)
    settings = shows(browser, "settings").text
    assert f'href="/console/settings/revisions/{earlier}"' in settings
    assert "<td>admin:admin</td>" in settings
    path = f"settings/revisions/{earlier}"
    page = shows(browser, path)
    assert "teams <strong>kept</strong>" in page.text
    assert f'name="etag" value="&#34;{compared}&#34;"' in page.text
    for role in ("viewer", "auditor", "operator"):
        assert shows(signed_in(gateway, role), path).status == 403
        assert sends(signed_in(gateway, role), path, etag=f'"{compared}"').status == 403
    admin.request("PUT", named("teams", "another"), {})
    for etag in (f'"{compared}"', ""):
        stale = sends(browser, path, etag=etag)
        assert stale.status == 412
        assert "no longer at" in stale.text
        assert admin.request("GET", named("teams", "kept")).status == 404
    now = admin.request("GET", "/v1/configuration").json["revision"]
    assert sends(browser, path, etag=f'"{now}"').status == 303
    assert admin.request("GET", named("teams", "kept")).json["value"]
    assert admin.request("GET", named("teams", "another")).status == 404
    rows = gateway.eventual_rows(
        "SELECT by, before FROM config_changes WHERE name = 'another'", lambda r: len(r) > 1
    )
    assert {row["by"] for row in rows} == {"admin:admin"}
    assert shows(browser, "settings/revisions/999999").status == 404


@pytest.mark.parametrize("wrong", ["x", "-1", "9" * 33, "%2e%2e"])
def test_a_revision_is_a_number(gateway: Launched, wrong: str) -> None:
    path = f"/v1/configuration/revisions/{wrong}/restore"
    assert at(gateway, SECRETS["admin"]).request("POST", path).status == 400
    assert shows(signed_in(gateway, "admin"), f"settings/revisions/{wrong}").status in (400, 404)


@pytest.mark.parametrize("role", [*(role for role in ROLES if role != "admin"), "admin"])
def test_a_person_is_erased_by_who_may_after_the_name_is_confirmed(
    gateway: Launched, role: str
) -> None:
    erased = "admin:operator"
    sends(signed_in(gateway, "operator"), "keys/add", name=f"known-to-{role}", tools="echo__*")
    made = f"event = 'key.created' AND key = 'known-to-{role}'"
    gateway.eventual_rows(f"SELECT 1 FROM events WHERE {made}", bool)
    browser, chosen = signed_in(gateway, role), {"person": erased, "reason": f"asked {HOSTILE}"}
    found = sends(browser, "audit/erasures", **chosen)
    if not may(role, "erase"):
        assert found.status == 403
        assert (
            at(gateway, SECRETS[role]).request("POST", "/v1/audit/erasures", chosen).status == 403
        )
        return
    assert found.status == 200
    assert f"Erase {erased} permanently?" in found.text
    assert HOSTILE not in found.text
    for wrong in ("", "operator", erased.upper()):
        refused = sends(browser, "audit/erasures", **chosen, action="erase", confirmed=wrong)
        assert refused.status == 422
    assert sends(browser, "audit/erasures", person="nobody", reason="x").status == 404
    assert sends(browser, "audit/erasures", person=erased, reason="").status == 400
    sends(browser, "audit/holds", customer="default", reason="case")
    held = sends(browser, "audit/erasures", **chosen, action="erase", confirmed=erased)
    assert (held.status, "legal hold" in held.text) == (409, True)
    sends(browser, "audit/holds", customer="default", reason="closed", action="lift")
    done = sends(browser, "audit/erasures", **chosen, action="erase", confirmed=erased)
    assert f"{erased} is erased" in done.text
    rows = gateway.eventual_rows(
        "SELECT customer, JSONExtractString(detail, 'by') AS by FROM events "
        "WHERE event = 'person.erased'",
        bool,
    )
    assert {(row["customer"], row["by"]) for row in rows} == {("default", "admin:admin")}
    assert sends(browser, "audit/erasures", **chosen).status == 404
    rows = gateway.eventual_rows(
        f"SELECT JSONExtractString(detail, 'by') AS by FROM events WHERE {made}", bool
    )
    assert "operator" not in rows[0]["by"]
