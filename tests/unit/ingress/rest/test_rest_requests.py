"""Requests to the REST APIs: routing, credentials, parameters and bodies, all strict."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from harness.services.rest_edge import LARGEST_BODY, RestEdge
from toolbus_common.errors import (
    InvalidConfigurationError,
    PolicyDownError,
    StaleError,
    ToolbusError,
)
from toolbus_common.mcp.builtin_server import Mode
from toolbus_ingress.http.jsonrpc import Response

NO_CONTENT = 204


@pytest.fixture(scope="module")
def shared_edge() -> RestEdge:
    return RestEdge()


@pytest.fixture
def edge(shared_edge: RestEdge) -> RestEdge:
    """Return the shared APIs, whose application takes long to build, with a new policy."""
    shared_edge.reset()
    return shared_edge


def problem(answer: Response) -> dict[str, Any]:
    """Return the members of a problem, which must be complete (RFC 9457)."""
    headers = dict(answer.headers)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"cache-control"] == b"no-store"
    found: dict[str, Any] = json.loads(answer.body)
    assert found["status"] == answer.status
    assert found["type"] == f"urn:toolbus:error:{found['code']}"
    assert all(found[name] for name in ("title", "detail", "fix"))
    return found


# -- routing --------------------------------------------------------------------------------------


async def test_an_operation_is_performed_by_policy_and_its_answer_passed_on(edge: RestEdge) -> None:
    answer = await edge.request("PUT", "/api/v1/teams/sales", b'{ "deny": [] }', If_Match='"7"')
    headers = dict(answer.headers)
    assert (answer.status, answer.body) == (200, b'{"done":true}')
    assert headers[b"etag"] == b'"7"'
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"cache-control"] == b"no-store"
    (query,) = edge.policy.queries
    assert query.model_dump(include={"operation", "kind", "name", "match", "form"}) == {
        "operation": "put_entry", "kind": "teams", "name": "sales", "match": "7", "form": "json",
    }  # fmt: skip
    assert getattr(query, "body", b"") == b'{"deny":[]}', "JSON is encoded again"


async def test_a_deleted_entry_is_answered_without_a_body(edge: RestEdge) -> None:
    answer = await edge.request("DELETE", "/api/v1/teams/sales")
    assert (answer.status, answer.body) == (NO_CONTENT, b"")
    assert b"content-type" not in dict(answer.headers)


@pytest.mark.parametrize("name", ["clock__*", "a/b/c", "file:///a?b", "x\ny", "é"])
async def test_a_pattern_in_a_path_may_contain_any_character(edge: RestEdge, name: str) -> None:
    answer = await edge.request("GET", f"/api/v1/prices/{name.replace('?', '!')}")
    if "\n" in name:
        assert problem(answer)["code"] == "invalid"
    else:
        assert answer.status == 200
        assert edge.policy.queries[0].model_dump()["name"] == name.replace("?", "!")


@pytest.mark.parametrize(
    "path",
    ["/api/v1", "/api/v1/", "/api/v1/keys/", "/api/v1/keys\n", "/api/v1/keys/a\n",
     "/api/v1/nothing", "/api/v2", "/api/x",
     "/api/v1/keys/a/rotate/", "/api/v1/keys/a/b", "/api/approvals/", "/api/approvals/abc",
     "/api/docs", "/api/v1/keys//rotate", "/api/v1/prices/"],
)  # fmt: skip
async def test_an_unknown_path_is_a_problem(edge: RestEdge, path: str) -> None:
    answer = await edge.request("GET", path)
    assert (answer.status, problem(answer)["code"]) == (404, "unknown_path")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api", "GET"),
        ("/api/openapi.json", "GET"),
        ("/api/v1/keys", "GET, POST"),
        ("/api/v1/servers/a", "DELETE, GET, PUT"),
        ("/api/v1/keys/a/rotate", "POST"),
        ("/api/approvals", "GET"),
        (f"/api/approvals/{'0' * 32}/approve", "POST"),
        ("/v1/mcp/tools", "GET"),
        ("/v1/mcp/tools/execute", "POST"),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "TRACE"])
async def test_another_method_is_a_problem_with_all_methods_of_the_path(
    edge: RestEdge, path: str, allowed: str, method: str
) -> None:
    answer = await edge.request(method, path, role="")
    assert (answer.status, dict(answer.headers)[b"allow"]) == (405, allowed.encode())
    assert allowed in problem(answer)["detail"]


@pytest.mark.parametrize("path", ["/api", "/api/"])
async def test_the_description_needs_no_credential(edge: RestEdge, path: str) -> None:
    answer = await edge.request("GET", path, role="")
    assert json.loads(answer.body)["openapi"] == "/api/openapi.json"
    document = await edge.request("GET", "/api/openapi.json", role="")
    assert json.loads(document.body)["openapi"].startswith("3.1")


# -- credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["", "tba_nobody_at-all-but-long-enough", "viewer"])
async def test_no_body_is_read_before_the_caller_is_authorized(edge: RestEdge, role: str) -> None:
    answer = await edge.request("POST", "/api/v1/keys", b'{"name": "a"}', role)
    assert answer.status == (403 if role == "viewer" else 401)
    assert edge.reads == 0
    assert edge.policy.queries == []
    assert answer.rejected == ("forbidden" if role == "viewer" else "unauthorized")
    challenge = dict(answer.headers).get(b"www-authenticate", b"")
    assert challenge.startswith(b'Bearer realm="toolbus administration"') == (role != "viewer")
    assert problem(answer)["fix"]


async def test_approvals_need_the_credential_of_an_approver(edge: RestEdge) -> None:
    answer = await edge.request("GET", "/api/approvals", role="")
    assert (answer.status, problem(answer)["code"]) == (401, "unauthorized")
    assert b'Bearer realm="toolbus"' in dict(answer.headers)[b"www-authenticate"]


# -- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=1&limit=2", "each of these at most once"),
        ("other=1", "at most once: limit, after"),
        ("limit=1&" * 17, "Too many query parameters"),
        *((f"limit={each}", "limit") for each in ("0", "1001", "-1", "+5", "1_0", "%205", "", "5.0",
                                                   "99999", "٣", "NaN")),
        (f"after={'x' * 257}", "after"),
    ],
)  # fmt: skip
async def test_an_invalid_query_is_a_problem(edge: RestEdge, query: str, text: str) -> None:
    answer = await edge.request("GET", f"/api/v1/keys?{query.encode().decode('latin-1')}")
    assert (answer.status, problem(answer)["code"]) == (400, "invalid")
    assert text in problem(answer)["detail"]
    assert edge.policy.queries == []


@pytest.mark.parametrize(
    ("path", "query"),
    [("configuration", "format=xml"), ("configuration", "dry_run=true"),
     ("budgets", "customer=a%20b"), ("self", "x=1")],
)  # fmt: skip
async def test_each_operation_accepts_its_own_parameters_only(
    edge: RestEdge, path: str, query: str
) -> None:
    assert problem(await edge.request("GET", f"/api/v1/{path}?{query}"))["code"] == "invalid"


@pytest.mark.parametrize(
    ("path", "known"),
    [("/api", "none"), ("/api/", "none"), ("/api/openapi.json", "none"),
     ("/api/approvals", "none"), (f"/api/approvals/{'0' * 32}", "none"),
     ("/v1/mcp/tools", "mode, format")],
)  # fmt: skip
@pytest.mark.parametrize("query", ["other=1", "mode=code&mode=tools"])
async def test_no_path_accepts_unknown_or_repeated_parameters(
    edge: RestEdge, path: str, known: str, query: str
) -> None:
    answer = await edge.request("GET", f"{path}?{query}", role="")
    assert (answer.status, problem(answer)["code"]) == (400, "invalid")
    assert f"at most once: {known}." in problem(answer)["detail"]


async def test_the_mode_of_a_list_of_tools_is_a_known_parameter(
    edge: RestEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = SimpleNamespace(applies=lambda _headers: False)
    monkeypatch.setattr(edge.endpoint, "anonymous", absent)
    answer = await edge.request("GET", "/v1/mcp/tools?mode=code", role="")
    assert (answer.status, problem(answer)["code"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/mcp/tools"), ("POST", "/v1/mcp/tools/execute")]
)
async def test_two_different_credentials_are_rejected(
    edge: RestEdge, method: str, path: str
) -> None:
    body = b"{}" if method == "POST" else b""
    answer = await edge.request(method, path, body, role="tbk_one", X_Api_Key="tbk_two")
    assert (answer.status, problem(answer)["code"]) == (401, "unauthorized")
    assert "different credentials" in problem(answer)["detail"]
    assert edge.reads == 0


async def test_parameters_are_passed_to_policy(edge: RestEdge) -> None:
    await edge.request("GET", "/api/v1/servers?limit=0002&after=b")
    body = b"keys: {}"
    await edge.request("PUT", "/api/v1/configuration?dry_run=true", body, If_Match="*",
                       Content_Type="application/yaml; charset=utf-8")  # fmt: skip
    listed, applied = (query.model_dump() for query in edge.policy.queries)
    assert (listed["limit"], listed["after"]) == (2, "b")
    assert (applied["dry_run"], applied["match"], applied["form"]) == (True, "*", "yaml")
    assert getattr(edge.policy.queries[1], "body", b"") == body


@pytest.mark.parametrize("value", ["", "x", '"', '1"x', "W/1", "1, 2"])
async def test_a_malformed_condition_is_rejected(edge: RestEdge, value: str) -> None:
    answer = await edge.request("DELETE", "/api/v1/teams/a", If_Match=value)
    assert (answer.status, "If-Match" in problem(answer)["detail"]) == (400, True)


@pytest.mark.parametrize("name", ["a" * 33, "-a", "a__b", "é", "a b"])
async def test_an_invalid_name_in_a_path_is_rejected(edge: RestEdge, name: str) -> None:
    answer = await edge.request("GET", f"/api/v1/keys/{name}")
    assert (answer.status, "name in the path" in problem(answer)["detail"]) == (400, True)
    assert problem(answer)["errors"][0]["location"] == "path.name"


# -- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"a": 1, "a": 2}', b'{"usd": NaN}', b'{"usd": Infinity}', b'{"usd": 1e999}', b"\xff",
     b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"[" * 65 + b"]" * 65, b"[" * 2000, b"1" * 5000,
     b"{} {}", b"\xef\xbb\xbf{}", b"\x00"],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
async def test_a_body_that_is_not_strict_json_is_a_problem(edge: RestEdge, body: bytes) -> None:
    for target in ("/api/v1/teams/a", "/api/v1/configuration"):
        answer = await edge.request("PUT", target, body)
        assert (answer.status, problem(answer)["code"]) == (400, "invalid")
        assert "not strict JSON" in problem(answer)["detail"]
    assert edge.policy.queries == []


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/yaml",
                   "application/vnd.x+json", "application/json2"]
)  # fmt: skip
async def test_another_content_type_is_a_problem(edge: RestEdge, media_type: str) -> None:
    answer = await edge.request("PUT", "/api/v1/teams/a", b"{}", Content_Type=media_type)
    assert (answer.status, edge.reads) == (415, 0)
    assert "application/json" in problem(answer)["detail"]


async def test_a_body_over_the_limit_is_a_problem(edge: RestEdge) -> None:
    body = b'"%b"' % (b"x" * LARGEST_BODY)
    for length in (str(len(body)), "x", "-1", "9" * 400):
        answer = await edge.request("PUT", "/api/v1/teams/a", body, Content_Length=length)
        assert (answer.status, problem(answer)["code"]) == (413, "size")
    assert edge.reads == 0
    answer = await edge.request("PUT", "/api/v1/teams/a", body, Content_Length="1")
    assert (answer.status, edge.reads) == (413, 1)


async def test_an_operation_without_a_body_reads_the_request_to_its_end(edge: RestEdge) -> None:
    answer = await edge.request("POST", "/api/v1/keys/a/rotate", b"\xff")
    assert (answer.status, edge.reads) == (200, 1)
    assert getattr(edge.policy.queries[0], "body", None) == b""


@pytest.mark.parametrize("body", [b"[]", b'{"note": 1}', b'{"note": "a", "note": "b"}', b"\xff"])
async def test_a_malformed_note_of_a_decision_is_a_problem(
    edge: RestEdge, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"/api/approvals/{'0' * 32}/reject"
    key = "tbk_boss_a-secret-of-the-rest-edge"
    monkeypatch.setattr(edge.endpoint, "catalogue", KeyHolder())
    answer = await edge.request("POST", target, body, key, Content_Type="text/plain")
    assert (answer.status, problem(answer)["code"]) == (400, "invalid")
    assert '"reason"' in problem(answer)["detail"]


class KeyHolder:
    """A catalogue in which every key exists."""

    def holder(self, *_: Any) -> Any:
        return "boss", None

    def mode(self, *_: Any) -> Any:
        return Mode.TOOLS


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(StaleError("old"), 412, False), (PolicyDownError("down"), 503, True),
     (ToolbusError("unknown"), 500, False)],
)  # fmt: skip
async def test_a_failure_of_policy_is_a_problem(
    edge: RestEdge, error: ToolbusError, status: int, *, retry: bool
) -> None:
    edge.policy.reply = error
    answer = await edge.request("GET", "/api/v1/self")
    assert (answer.status, problem(answer)["code"]) == (status, error.code)
    assert problem(answer)["retryable"] is retry
    assert (b"retry-after" in dict(answer.headers)) == retry


async def test_the_fix_of_a_rejected_body_also_fits_what_needs_another_form(edge: RestEdge) -> None:
    edge.policy.reply = InvalidConfigurationError("sql: Start Toolbus without --lite.", errors=[])
    found = problem(await edge.request("POST", "/api/v1/audit/query", b'{"sql": "SELECT 1"}'))
    assert found["detail"] == "sql: Start Toolbus without --lite."
    assert found["fix"].startswith("Correct what the detail and 'errors' describe")


async def test_an_unexpected_error_shows_no_detail(edge: RestEdge) -> None:
    edge.policy.reply = RuntimeError("secret detail")
    with pytest.raises(RuntimeError):
        await edge.request("GET", "/api/v1/self")


async def test_too_many_requests_in_flight_are_a_problem(
    edge: RestEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.endpoint, "max_in_flight", 0)
    answer = await edge.request("GET", "/api/v1/self")
    assert (answer.status, problem(answer)["code"]) == (503, "overloaded")
