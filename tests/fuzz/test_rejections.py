"""Guessing of keys is visible: every listener counts what it rejects, by address and reason."""

import json
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from fuzz.fuzzed_gateway import (
    ADMIN,
    APPROVAL,
    CUSTOMER_READER,
    KEY,
    NARROW,
    PASSWORD,
    READER,
    FuzzedGateway,
    place,
)
from harness.clients.mcp_client import Client
from harness.network.raw_requests import exchange, request_bytes
from harness.waits import until_blocking
from toolbus_common.service.names import SERVICES

SOON = "0.2"  # instead of a minute
WRONG = "tbk_root_a-secret-that-is-guessed"
COUNTS = "SELECT entrance, code, address, sum(requests) AS n FROM rejections GROUP BY ALL"
Counts = dict[tuple[str, str, str], int]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedGateway]:
    with place(tmp_path_factory.mktemp("attacked"), TOOLBUS_REJECTION_SECONDS=SOON) as made:
        yield made


def counts(attacked: FuzzedGateway) -> Counts:
    """Return the rejections in ClickHouse."""
    rows = attacked.launched.rows(COUNTS)
    return {(str(r["entrance"]), str(r["code"]), str(r["address"])): int(r["n"]) for r in rows}


def attempts(attacked: FuzzedGateway) -> dict[tuple[str, str], bytes]:
    """Yield one rejected request for each listener and reason."""
    seeds = {seed.name: seed.request for seed in attacked.seeds}
    wrong, narrow = f"Bearer {WRONG}", f"Bearer {NARROW}"
    mcp = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}
    listing = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    guessed = seeds["sign in"].body.replace(urlencode({"p": PASSWORD})[2:].encode(), b"guessed")
    page = urlencode({"action": "show", "key": WRONG}).encode()
    return {
        ("mcp", "unauthorized"): request_bytes("/mcp", "POST", listing, Authorization=wrong, **mcp),
        ("mcp", "no_credential"): request_bytes("/mcp", "POST", listing, **mcp),
        ("mcp", "unknown_server"): request_bytes(
            "/mcp/secret", "POST", listing, Authorization=narrow, **mcp
        ),
        ("mcp", "server_not_granted"): request_bytes(
            "/mcp/echo", "POST", listing, Authorization=narrow, **mcp
        ),
        ("mcp", "host"): request_bytes("/mcp", "POST", listing, Host="evil.example", **mcp),
        ("admin", "unauthorized"): request_bytes("/api/v1/keys", Authorization=wrong),
        ("admin", "no_credential"): request_bytes("/api/v1/keys"),
        ("approvals", "unauthorized"): request_bytes(
            f"/approvals/{APPROVAL}", "POST", page, **form
        ),
        ("approvals", "no_credential"): request_bytes("/api/approvals"),
        ("oauth", "password"): replace(seeds["sign in"], body=guessed).encode(),
        ("oauth", "device_code"): seeds["device"].encode(),
        ("oauth", "invalid_dpop_proof"): seeds["token"].encode(),
        ("oauth", "invalid_client"): seeds["refresh"].encode(),
        ("oauth", "invalid_grant"): replace(
            seeds["token"], headers=seeds["token"].headers[:-1]
        ).encode(),
        ("oauth", "provider"): seeds["returned"].encode(),
    }


def test_each_way_of_being_rejected_is_an_event_and_a_metric(attacked: FuzzedGateway) -> None:
    before = counts(attacked)
    port, tried = attacked.launched.port, attempts(attacked)
    for request in tried.values():
        for _ in range(3):
            assert exchange(port, request).status in (200, 400, 401, 403, 404)
    bad = {"X_ClickHouse_User": "analyst", "X_ClickHouse_Key": WRONG}
    assert exchange(attacked.reading, request_bytes("/", "POST", b"SELECT 1", **bad)).status == 403
    wanted = {(*kind, "127.0.0.1"): 3 for kind in tried} | {
        ("reader", "unauthorized", "127.0.0.1"): 1
    }

    def missing() -> Counts:
        now = counts(attacked)
        found = {kind: now.get(kind, 0) - before.get(kind, 0) for kind in wanted}
        return {kind: found[kind] for kind in wanted if found[kind] != wanted[kind]}

    until_blocking(lambda: not missing(), "every way of being rejected")
    text = [Client(url).get(f"{url}/metrics").body.decode() for url in _listeners(attacked)]
    for entrance, code, _ in wanted:
        name = f'toolbus_rejected_access_total{{entrance="{entrance}",reason="{code}"}}'
        assert any(name in page for page in text), name


def test_a_good_request_leaves_nothing(attacked: FuzzedGateway) -> None:
    before = counts(attacked)
    assert not attacked.launched.client(KEY).call("echo__say", {"text": "x"}).code
    marked = exchange(attacked.launched.port, request_bytes("/mcp/marked", "POST", b"{}",
                      Content_Type="application/json", Authorization=f"Bearer {KEY}"))  # fmt: skip
    assert marked.status == 404
    unknown = ("mcp", "unknown_server", "127.0.0.1")
    until_blocking(
        lambda: counts(attacked).get(unknown, 0) == before.get(unknown, 0) + 1, "the later one"
    )
    assert {k: n for k, n in counts(attacked).items() if k != unknown} == {
        k: n for k, n in before.items() if k != unknown
    }


def test_a_flood_of_rejections_is_a_few_events_with_its_total(attacked: FuzzedGateway) -> None:
    before, many = counts(attacked), 400
    client = Client(attacked.launched.ready["endpoint"], WRONG)
    rows = "SELECT count() AS n FROM rejections"
    (events,) = attacked.launched.rows(rows)
    for _ in range(many):
        assert client.request("tools/list").status == 401
    kind = ("mcp", "unauthorized", "127.0.0.1")
    until_blocking(
        lambda: counts(attacked).get(kind, 0) - before.get(kind, 0) == many, "all of them"
    )
    (after,) = attacked.launched.rows(rows)
    assert int(after["n"]) - int(events["n"]) < many / 2


def test_a_rejection_is_in_the_tail_and_in_a_saved_query(attacked: FuzzedGateway) -> None:
    Client(attacked.launched.ready["endpoint"], WRONG).request("tools/list")
    until_blocking(lambda: counts(attacked).get(("mcp", "unauthorized", "127.0.0.1")), "an event")
    tail = attacked.launched.toolbus("audit", "tail", "--event", "access.rejected")
    assert "unauthorized: " in tail.stdout
    assert "at mcp from 127.0.0.1" in tail.stdout
    saved = attacked.launched.toolbus("audit", "query", "--saved", "rejections", "--json")
    assert saved.returncode == 0, saved.stderr
    assert ("127.0.0.1", "mcp", "unauthorized") in {
        (row["client"], row["entrance"], row["code"]) for row in json.loads(saved.stdout)
    }


def test_no_secret_is_in_an_event_and_no_customer_sees_one(attacked: FuzzedGateway) -> None:
    Client(attacked.launched.ready["endpoint"], WRONG).request("tools/list")
    until_blocking(lambda: counts(attacked), "an event")
    result = repr(attacked.launched.rows("SELECT * FROM events WHERE event = 'access.rejected'"))
    for secret in (WRONG, KEY, ADMIN, READER, NARROW, PASSWORD, "guessed"):
        assert secret not in result
    question = b"SELECT count() FROM rejections FORMAT TSV"
    for user, secret, sees in (("analyst", READER, True), ("customer", CUSTOMER_READER, False)):
        about = {"X_ClickHouse_User": user, "X_ClickHouse_Key": secret}
        found = exchange(attacked.reading, request_bytes("/", "POST", question, **about))
        assert (found.status, int(found.body) > 0) == (200, sees), found


def _listeners(attacked: FuzzedGateway) -> set[str]:
    return {attacked.launched.ready["ops"][service] for service in SERVICES}
