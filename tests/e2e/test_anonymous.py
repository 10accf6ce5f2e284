"""Callers without a credential: their tools, their origin, and their isolation from each other."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients.event_streams import Events
from harness.clients.mcp_client import JSON, Client
from harness.gateway.cluster import Upstream
from harness.gateway.family_gateway import calling, request, start_session, stateless
from harness.gateway.launched_gateway import Launched
from harness.network.raw_requests import exchange, request_bytes
from harness.services.executor_pair import COMMAND
from harness.waits import until_blocking
from toolbus_common.contracts import IDEMPOTENCY

KEY = "tbk_owner_e2e-secret-beside-anonymous"
OK, DENIED, FORBIDDEN = 200, 401, 403


class AnonymousGateway:
    """A gateway that serves callers without a credential, and two of its clients."""

    def __init__(self, launched: Launched, echo: Upstream) -> None:
        self.launched = launched
        self.echo = echo
        self.anonymous = Client(launched.ready["endpoint"])
        self.owner = launched.client(KEY)

    @property
    def port(self) -> int:
        return self.launched.port

    def at(self, path: str, key: str = "") -> Client:
        return Client(f"http://127.0.0.1:{self.port}{path}", key)


def declared(echo: Upstream, **anonymous: Any) -> dict[str, Any]:
    tools = ["echo__say", "echo__count", "kept__*"]
    return {
        "servers": {
            "echo": {"url": echo.url},
            "kept": {"command": list(COMMAND), "max_sessions": 8, "max_sessions_per_principal": 3},
        },
        "keys": {"owner": {"secret": KEY, "tools": ["*"]}},
        "prices": {"echo__count": 0.5},
        "anonymous": {"tools": tools, "budget": {"usd": 1, "per": "day"}, **anonymous},
    }


@pytest.fixture(scope="module", params=["separate", "fused"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AnonymousGateway]:
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    options = ["--separate"] if request.param == "separate" else []
    launched = Launched(tmp_path_factory.mktemp(request.param), *options)
    with echo.running(), launched.running(declared(echo)):
        gateway = AnonymousGateway(launched, echo)
        launched.until_listed(gateway.owner, "echo__say", "kept__recall")
        yield gateway


def test_an_anonymous_caller_uses_granted_tools_only(gateway: AnonymousGateway) -> None:
    tools = set(gateway.anonymous.tools())
    assert {"echo__say", "kept__recall"} <= tools
    assert "echo__wait" not in tools
    assert gateway.anonymous.call("echo__say", {"text": "hello"}).text == "hello"
    assert gateway.anonymous.call("echo__wait", {"seconds": 0}).code == "unknown_tool"
    assert gateway.at("/mcp/echo").call("say", {"text": "hello"}).text == "hello"
    assert request(
        gateway.anonymous, "tools/call", {"name": "echo__say", "arguments": {"text": "new"}}
    ).text


def test_events_name_the_anonymous_caller_whose_budget_ends(gateway: AnonymousGateway) -> None:
    run = "a" * 31 + "1"
    codes = [gateway.anonymous.call("echo__count", {"id": "n"}, run).code for _ in range(4)]
    assert "budget_exceeded" in codes, "two calls cost the whole budget"
    rows = gateway.launched.eventual_events(f"trace_id = '{run}'", "call.completed", "call.denied")
    assert {row["key"] for row in rows.values()} == {"(anonymous)"}
    assert {row["user"] for row in rows.values()} == {""}


@pytest.mark.parametrize(
    "credential",
    [
        {"Authorization": "Bearer tbk_wrong_is-not-a-declared-key"},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
        {"Authorization": "Bearer anonymous"},
        {"Authorization": "Bearer (anonymous)"},
        {"Authorization": "Basic b3duZXI6b3duZXI="},
        {"Authorization": "DPoP eyJhbGciOiJub25lIn0.e30.x"},
        {"DPoP": "eyJhbGciOiJub25lIn0.e30.x"},
        {"X-API-Key": "tbk_wrong_is-not-a-declared-key"},
    ],
)
@pytest.mark.parametrize("path", ["/mcp", "/mcp/echo", "/v1/mcp/tools", "/sse"])
def test_a_wrong_credential_never_becomes_an_anonymous_call(
    gateway: AnonymousGateway, credential: dict[str, str], path: str
) -> None:
    assert status_of_a_list(gateway, path, credential) == DENIED


@pytest.mark.parametrize(
    ("path", "status"),
    [("/mcp", DENIED), ("/mcp/echo", DENIED), ("/sse", DENIED), ("/v1/mcp/tools", OK)],
)
def test_a_key_in_x_api_key_is_accepted_by_the_rest_api_only(
    gateway: AnonymousGateway, path: str, status: int
) -> None:
    assert status_of_a_list(gateway, path, {"X-API-Key": KEY}) == status


def status_of_a_list(gateway: AnonymousGateway, path: str, credential: dict[str, str]) -> int:
    method = "POST" if path.startswith("/mcp") else "GET"
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}' if method == "POST" else b""
    )
    request = request_bytes(path, method, body, **{**JSON, **credential})
    return exchange(gateway.port, request).status


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "http://localhost:3000"},  # a page this machine serves
        {"Origin": "http://127.0.0.1"},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Host": "rebound.example"},
        {"X-Forwarded-For": "203.0.113.7"},
        {"X-Forwarded-Host": "tools.example"},
        {"Forwarded": "for=203.0.113.7"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "203.0.113.7"},
    ],
)
@pytest.mark.parametrize("path", ["/mcp", "/mcp/echo", "/v1/mcp/tools/execute", "/sse"])
def test_a_web_page_or_a_proxy_needs_a_key(
    gateway: AnonymousGateway, foreign: dict[str, str], path: str
) -> None:
    before = len(gateway.echo.arrived())
    body = msg(calling("echo__say", 1, text="stolen"))
    if path == "/v1/mcp/tools/execute":
        body = b'{"type":"function_call","call_id":"1","name":"echo__say","arguments":"{}"}'
    method, body = ("GET", b"") if path == "/sse" else ("POST", body)
    answer = exchange(gateway.port, request_bytes(path, method, body, **{**JSON, **foreign}))
    assert answer.status in (DENIED, FORBIDDEN), answer.body
    assert len(gateway.echo.arrived()) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/configuration"),
        ("GET", "/api/v1/keys"),
        ("GET", "/api/v1/approvals"),
        ("GET", "/api/approvals"),
        ("POST", f"/api/approvals/{'0' * 32}/approve"),
        ("PUT", "/api/v1/keys/owner"),
    ],
)
def test_administration_and_approvals_need_a_key(
    gateway: AnonymousGateway, method: str, path: str
) -> None:
    body = b"" if method == "GET" else b"{}"
    assert exchange(gateway.port, request_bytes(path, method, body, **JSON)).status == DENIED


def test_two_anonymous_sessions_have_separate_server_state(gateway: AnonymousGateway) -> None:
    first, second = (start_session(gateway.anonymous) for _ in range(2))

    def call_text(session: str, tool: str, **arguments: Any) -> str:
        return gateway.anonymous.post(calling(tool, 1, **arguments), Mcp_Session_Id=session).text

    for session, text in ((first, "one"), (second, "two")):
        assert call_text(session, "kept__remember", text=text) == text
    assert call_text(first, "kept__recall") == "one"
    assert call_text(second, "kept__recall") == "two"
    assert (
        request(gateway.anonymous, "tools/call", {"name": "kept__recall", "arguments": {}}).text
        == ""
    )


def test_an_idempotency_key_is_scoped_to_its_anonymous_session(gateway: AnonymousGateway) -> None:
    meta = {"_meta": {IDEMPOTENCY: "same"}}
    call = calling("echo__say", 1, text="mine")
    call["params"] |= meta
    first, second = (start_session(gateway.anonymous) for _ in range(2))
    before = len(gateway.echo.arrived())
    for session in (first, second, first):
        assert gateway.anonymous.post(call, Mcp_Session_Id=session).text == "mine"
    assert len(gateway.echo.arrived()) == before + 2
    body, headers = stateless("tools/call", {"name": "echo__say", "arguments": {"text": "x"}})
    body["params"]["_meta"][IDEMPOTENCY] = "same"
    assert "idempotency key" in gateway.anonymous.post(body, **headers).error["message"]


def test_a_session_a_task_and_a_result_are_unknown_to_other_clients(
    gateway: AnonymousGateway,
) -> None:
    tasks: dict[str, Any] = {"tasks": {"requests": {"tools": {"call": {}}}}}
    first, second = (start_session(gateway.anonymous, tasks) for _ in range(2))
    call = calling("echo__say", 1, text="mine")
    call["params"]["task"] = {"ttl": 60_000}
    body = gateway.anonymous.post(call, Mcp_Session_Id=first).json["result"]["task"]["taskId"]

    def result(session: str, client: Client) -> Any:
        message = {"jsonrpc": "2.0", "id": 2, "method": "tasks/result", "params": {"taskId": body}}
        return client.post(message, **({"Mcp_Session_Id": session} if session else {}))

    assert result(first, gateway.anonymous).text == "mine"
    for session, client in (
        (second, gateway.anonymous),
        ("", gateway.anonymous),
        ("", gateway.owner),
    ):
        assert "error" in result(session, client).json
    assert gateway.owner.post(calling("echo__say", 3, text="x"), Mcp_Session_Id=first).status == 404


def test_anonymous_callers_share_the_session_limit_of_one_principal(
    gateway: AnonymousGateway,
) -> None:
    held = [start_session(gateway.anonymous) for _ in range(5)]
    for session in held:
        remembered = calling("kept__remember", 1, text="x")
        assert gateway.anonymous.post(remembered, Mcp_Session_Id=session).text == "x"
    result = gateway.launched.toolbus("status", "--json")
    assert '"limit": 8' in result.stdout
    # Only three of the five sessions keep their state: the least recently used ones have ended.
    texts = [
        gateway.anonymous.post(calling("kept__recall", 1), Mcp_Session_Id=each).text
        for each in reversed(held)
    ]
    assert texts[:3] == ["x", "x", "x"]
    assert texts[3] == ""


def test_programs_call_the_same_tools_and_no_others(gateway: AnonymousGateway) -> None:
    client = gateway.at("/mcp?mode=code")
    message = client.call("executeToolCode", {"code": 'result = echo.say(text="from a program")'})
    assert "from a program" in message.text
    refused = client.call("executeToolCode", {"code": "result = echo.wait(seconds=0)"})
    assert "unknown_tool" in refused.text or "nknown" in refused.text


def test_http_sse_serves_anonymous_callers(gateway: AnonymousGateway) -> None:
    with Events(gateway.at("/sse")) as stream:
        where = stream.data()
        posted = gateway.at(where).post(calling("echo__say", 1, text="over a stream"))
        assert posted.status == 202
        assert stream.next()["result"]["content"][0]["text"] == "over a stream"


def test_status_names_the_anonymous_callers_that_are_served(gateway: AnonymousGateway) -> None:
    text = gateway.launched.toolbus("status").stdout
    assert "anonymous=this machine" in text


def test_anonymous_callers_are_rejected_without_configuration(gateway: AnonymousGateway) -> None:
    document = declared(gateway.echo)
    document.pop("anonymous")
    gateway.launched.configure(document)
    try:
        until_blocking(
            lambda: gateway.anonymous.request("tools/list").status == DENIED, "it is closed", 60
        )
        assert gateway.anonymous.call("echo__say", {"text": "x"}).status == DENIED
    finally:
        gateway.launched.configure(declared(gateway.echo))
        until_blocking(
            lambda: gateway.anonymous.request("tools/list").status == OK, "it is open", 60
        )


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[tuple[Launched, Upstream]]:
    """Prepare a gateway that listens on every address, without starting it."""
    echo = Upstream(tmp_path / "echo")
    (tmp_path / "up").mkdir()
    launched = Launched(tmp_path / "up", "--host", "0.0.0.0")
    try:
        echo.start()
        yield launched, echo
    finally:
        launched.stop()
        echo.kill()


def test_a_public_listener_requires_allow_remote_for_anonymous_callers(
    unstarted: tuple[Launched, Upstream],
) -> None:
    launched, echo = unstarted
    launched.configure(declared(echo))
    with pytest.raises(RuntimeError) as refused:
        launched.start()
    for part in ("anonymous:", "0.0.0.0", "127.0.0.1 only", "anonymous.allow_remote: true"):
        assert part in str(refused.value)
    launched.configure(declared(echo, allow_remote=True))
    address = own_address()
    launched.environment["TOOLBUS_ALLOWED_HOSTS"] = f"127.0.0.1,localhost,{address}"
    launched.start()
    launched.until_listed(launched.client(KEY), "echo__say")
    anonymous = Client(f"http://{address}:{launched.port}/mcp")
    assert anonymous.call("echo__say", {"text": "from afar"}).text == "from afar"
    call = calling("echo__say", 1, text="x")
    assert anonymous.post(call, Origin="https://evil.example").status == FORBIDDEN
    page = anonymous.post(call, Origin="http://localhost:3000")
    assert page.status == DENIED, "allow_remote does not admit web pages"
    assert "everyone" in launched.toolbus("status").stdout


def test_a_service_with_a_public_listener_rejects_the_configuration_itself(
    unstarted: tuple[Launched, Upstream],
) -> None:
    launched, echo = unstarted
    document = declared(echo)
    anonymous = document.pop("anonymous")
    launched.configure(document)
    launched.start()
    launched.until_listed(launched.client(KEY), "echo__say")
    file = launched.directory / "more.yaml"
    launched.configure({**document, "anonymous": anonymous})
    launched.config.rename(file)
    launched.configure(document)
    applied = launched.toolbus("apply", "-f", str(file), "-y")
    assert applied.returncode != 0
    assert "allow_remote" in applied.stderr
    assert launched.client("").request("tools/list").status == DENIED


def own_address() -> str:
    """Return an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def msg(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
