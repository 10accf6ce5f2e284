"""Truncated requests: they have no effect at any endpoint."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from harness.clients.admin_client import Administrator, at
from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.gateway.cluster import Upstream
from harness.gateway.family_gateway import calling, start_session
from harness.gateway.launched_gateway import Launched
from harness.network.raw_connections import RawHttp, chunked, request
from harness.waits import until_blocking

BOT, BOSS = "tbk_bot_e2e-secret-of-whole-requests", "tbk_boss_e2e-secret-of-whole-requests"
ADMIN = "tba_admin_e2e-secret-of-whole-requests"
NUMBERS = count()
MIB = 1024 * 1024
JSON = "Content-Type: application/json"
REDIRECT = "http://127.0.0.1:9/callback"


@dataclass
class HttpGateway:
    """A gateway, and the server behind it."""

    launched: Launched
    echo: Upstream
    streams: dict[str, Events] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)

    @property
    def admin(self) -> Administrator:
        return at(self.launched, ADMIN)

    @property
    def base(self) -> str:
        return str(self.launched.ready["endpoint"]).removesuffix("/mcp")

    def client(self, secret: str = BOT) -> Client:
        return self.launched.client(secret)

    def arrived(self, mark: str) -> bool:
        """Return whether a call with this text reached the server."""
        return mark in {call.get("text") for call in self.echo.arrived()}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpGateway]:
    """Run a gateway with one server, sign-in, and a tool that needs approval."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    launched = Launched(tmp_path_factory.mktemp("whole"))
    launched.configure(
        {
            "servers": {"echo": {"url": echo.url}},
            "keys": {
                "bot": {"secret": BOT, "tools": ["*"], "approve": ["echo__count"]},
                "boss": {"secret": BOSS, "tools": [], "rights": ["approve"]},
            },
            "admins": {"root": {"role": "admin", "secret": ADMIN}},
            "access": {"staff": {"claims": {"groups": "staff"}, "tools": ["echo__say"]}},
        }
    )
    gateway = HttpGateway(launched, echo)
    try:
        echo.start()
        launched.start()
        launched.until_listed(gateway.client(), "echo__say")
        yield gateway
    finally:
        for stream in gateway.streams.values():
            stream.close()
        launched.stop()
        echo.kill()


@dataclass(frozen=True)
class EffectfulRequest:
    """A request that has an effect."""

    method: str
    path: str
    body: bytes
    headers: tuple[str, ...]

    def cut(self, how: str) -> bytes:
        """Return the request without its end; the rest is meaningful by itself."""
        if how == "chunked":
            return chunked(self.method, self.path, self.body, *self.headers, end=b"")
        longer = len(self.body) + 350
        return request(self.method, self.path, self.body, *self.headers, length=longer)

    @property
    def whole(self) -> bytes:
        """The complete request."""
        return request(self.method, self.path, self.body, *self.headers)


def bearer(secret: str) -> str:
    return f"Authorization: Bearer {secret}"


def encoded(body: Any) -> bytes:
    return json.dumps(body).encode()


# -- requests, and how their effect is observed ----------------------------------------------------


def a_call(_: HttpGateway, mark: str) -> EffectfulRequest:
    return EffectfulRequest(
        "POST", "/mcp", encoded(calling("echo__say", 1, text=mark)), (bearer(BOT), JSON)
    )


def a_call_over_sse(gateway: HttpGateway, mark: str) -> EffectfulRequest:
    stream = gateway.streams[mark] = Events(gateway.client(), path="/sse")
    where = urlsplit(stream.data())
    info = {"name": "e2e", "version": "1"}
    params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": info}
    begin = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    path = f"{where.path}?{where.query}"
    Client(f"{gateway.base}{path}", BOT).post(begin)
    assert stream.next()["id"] == 0
    return EffectfulRequest(
        "POST", path, encoded(calling("echo__say", 1, text=mark)), (bearer(BOT), JSON)
    )


def an_executed_tool(_: HttpGateway, mark: str) -> EffectfulRequest:
    body = {
        "id": mark,
        "function": {"name": "echo__say", "arguments": encoded({"text": mark}).decode()},
    }
    return EffectfulRequest("POST", "/v1/mcp/tools/execute", encoded(body), (bearer(BOT), JSON))


def a_session_ended(gateway: HttpGateway, mark: str) -> EffectfulRequest:
    gateway.states[mark] = start_session(gateway.client())
    return EffectfulRequest(
        "DELETE", "/mcp", b"{}", (bearer(BOT), f"Mcp-Session-Id: {gateway.states[mark]}")
    )


def a_configuration(gateway: HttpGateway, mark: str) -> EffectfulRequest:
    document, etag = gateway.admin.declared()
    document["teams"] = {**document.get("teams", {}), mark: {}}
    headers = (bearer(ADMIN), "Content-Type: application/yaml", f"If-Match: {etag}")
    return EffectfulRequest(
        "PUT", "/api/v1/configuration", yaml.safe_dump(document).encode(), headers
    )


def a_team(_: HttpGateway, mark: str) -> EffectfulRequest:
    return EffectfulRequest("PUT", f"/api/v1/teams/{mark}", b"{}", (bearer(ADMIN), JSON))


def a_team_deleted(gateway: HttpGateway, mark: str) -> EffectfulRequest:
    created = gateway.admin.request("PUT", f"/v1/teams/{mark}", {})
    assert created.status in (200, 201), created
    return EffectfulRequest("DELETE", f"/api/v1/teams/{mark}", b"{}", (bearer(ADMIN), JSON))


def a_key_revoked(gateway: HttpGateway, mark: str) -> EffectfulRequest:
    created = gateway.admin.request("POST", "/v1/keys", {"name": mark, "tools": []})
    assert created.status == 201, created
    return EffectfulRequest("POST", f"/api/v1/keys/{mark}/revoke", b"{}", (bearer(ADMIN), JSON))


def a_rejected_call(gateway: HttpGateway, mark: str) -> EffectfulRequest:
    answer = gateway.client().call("echo__count", {"id": mark})
    gateway.states[mark] = answer.error["data"]["approval"]
    path = f"/api/approvals/{gateway.states[mark]}/reject"
    return EffectfulRequest("POST", path, encoded({"reason": "Not today."}), (bearer(BOSS), JSON))


def a_registration(_: HttpGateway, mark: str) -> EffectfulRequest:
    document = {"client_name": mark, "redirect_uris": [REDIRECT]}
    document["token_endpoint_auth_method"] = "none"
    return EffectfulRequest("POST", "/oauth/register", encoded(document), (JSON,))


def session_is_over(gateway: HttpGateway, mark: str) -> bool:
    return gateway.client().request("ping", Mcp_Session_Id=gateway.states[mark]).status == 404


def is_rejected(gateway: HttpGateway, mark: str) -> bool:
    answer = Client(f"{gateway.base}/api/approvals/{gateway.states[mark]}", BOSS).get(
        f"{gateway.base}/api/approvals/{gateway.states[mark]}"
    )
    return bool(answer.json["state"] == "rejected")


def is_revoked(gateway: HttpGateway, mark: str) -> bool:
    return bool(gateway.admin.request("GET", f"/v1/keys/{mark}").json["state"] == "revoked")


def is_registered(gateway: HttpGateway, mark: str) -> bool:
    return mark in gateway.launched.toolbus("clients", "list", "--json").stdout


def is_there(gateway: HttpGateway, mark: str) -> bool:
    return gateway.admin.request("GET", f"/v1/teams/{mark}").status == 200


EFFECTS: list[
    tuple[Callable[[HttpGateway, str], EffectfulRequest], Callable[[HttpGateway, str], bool]]
] = [
    (a_call, HttpGateway.arrived),
    (a_call_over_sse, HttpGateway.arrived),
    (an_executed_tool, HttpGateway.arrived),
    (a_session_ended, session_is_over),
    (a_configuration, is_there),
    (a_team, is_there),
    (a_team_deleted, lambda gateway, mark: not is_there(gateway, mark)),
    (a_key_revoked, is_revoked),
    (a_rejected_call, is_rejected),
    (a_registration, is_registered),
]


@pytest.mark.parametrize("how", ["length", "chunked"])
@pytest.mark.parametrize(("build", "done"), EFFECTS, ids=[build.__name__ for build, _ in EFFECTS])
def test_a_truncated_request_has_no_effect_and_a_complete_one_has(
    gateway: HttpGateway,
    build: Callable[[HttpGateway, str], EffectfulRequest],
    done: Callable[[HttpGateway, str], bool],
    how: str,
) -> None:
    cut, whole = (f"mark-{next(NUMBERS)}" for _ in range(2))
    with RawHttp(gateway.base) as connection:
        connection.send(build(gateway, cut).cut(how))
        connection.half_close()
        assert connection.ended()
    with RawHttp(gateway.base) as connection:
        connection.send(build(gateway, whole).whole)
        assert connection.answer().status < 300
    until_blocking(lambda: done(gateway, whole), "the whole request has its effect")
    assert not done(gateway, cut)


def exchanged(gateway: HttpGateway, data: bytes) -> int:
    """Return the status of the answer to these bytes."""
    with RawHttp(gateway.base) as connection:
        connection.send(data)
        return connection.answer().status


def test_a_credential_or_a_host_in_a_trailer_is_ignored(gateway: HttpGateway) -> None:
    mark = f"mark-{next(NUMBERS)}"
    body = encoded(calling("echo__say", 1, text=mark))
    late = f"0\r\n{bearer(BOT)}\r\n\r\n".encode()
    assert exchanged(gateway, chunked("POST", "/mcp", body, JSON, end=late)) == 401
    foreign = chunked("POST", "/mcp", body, JSON, bearer(BOT), end=b"0\r\nHost: localhost\r\n\r\n")
    assert exchanged(gateway, foreign.replace(b"Host: 127.0.0.1", b"Host: evil.example")) == 403
    assert exchanged(gateway, foreign.replace(b"Host: 127.0.0.1\r\n", b"")) == 403
    assert not gateway.arrived(mark)
    ours = chunked("POST", "/mcp", body, JSON, bearer(BOT), end=b"0\r\nHost: evil.example\r\n\r\n")
    assert exchanged(gateway, ours) == 200
    assert gateway.arrived(mark)


def test_endless_trailers_are_rejected_before_they_fill_the_memory(gateway: HttpGateway) -> None:
    mark = f"mark-{next(NUMBERS)}"
    body = encoded(calling("echo__say", 1, text=mark))
    with RawHttp(gateway.base) as connection:
        connection.send(chunked("POST", "/mcp", body, JSON, bearer(BOT), end=b"0\r\n"))
        assert connection.flood(b"X-Y: " + b"y" * 1000 + b"\r\n", 57 * MIB) < 57 * MIB
    assert exchanged(gateway, a_call(gateway, "after").whole) == 200
    assert not gateway.arrived(mark)
