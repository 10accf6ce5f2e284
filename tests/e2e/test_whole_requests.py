"""A request is whole or it is nothing: what is cut short has no effect at any endpoint."""

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
class Place:
    """A gateway, and what stands behind it."""

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
        """Whether a call with this text reached the server."""
        return mark in {call.get("text") for call in self.echo.arrived()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Toolbus over one upstream, where people may sign in and one tool needs approval."""
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
    made = Place(launched, echo)
    try:
        echo.start()
        launched.start()
        launched.until_listed(made.client(), "echo__say")
        yield made
    finally:
        for stream in made.streams.values():
            stream.close()
        launched.stop()
        echo.kill()


@dataclass(frozen=True)
class Asked:
    """A request that has an effect."""

    method: str
    path: str
    body: bytes
    headers: tuple[str, ...]

    def cut(self, how: str) -> bytes:
        """The request without its end; what is there of it makes sense by itself."""
        if how == "chunked":
            return chunked(self.method, self.path, self.body, *self.headers, end=b"")
        longer = len(self.body) + 350
        return request(self.method, self.path, self.body, *self.headers, length=longer)

    @property
    def whole(self) -> bytes:
        """The request."""
        return request(self.method, self.path, self.body, *self.headers)


def bearer(secret: str) -> str:
    return f"Authorization: Bearer {secret}"


def told(body: Any) -> bytes:
    return json.dumps(body).encode()


# -- what is asked, and how its effect is seen ----------------------------------------------------


def a_call(_: Place, mark: str) -> Asked:
    return Asked("POST", "/mcp", told(calling("echo__say", 1, text=mark)), (bearer(BOT), JSON))


def a_call_over_sse(place: Place, mark: str) -> Asked:
    stream = place.streams[mark] = Events(place.client(), path="/sse")
    where = urlsplit(stream.data())
    info = {"name": "e2e", "version": "1"}
    params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": info}
    begin = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    path = f"{where.path}?{where.query}"
    Client(f"{place.base}{path}", BOT).post(begin)
    assert stream.next()["id"] == 0
    return Asked("POST", path, told(calling("echo__say", 1, text=mark)), (bearer(BOT), JSON))


def an_executed_tool(_: Place, mark: str) -> Asked:
    body = {
        "id": mark,
        "function": {"name": "echo__say", "arguments": told({"text": mark}).decode()},
    }
    return Asked("POST", "/v1/mcp/tools/execute", told(body), (bearer(BOT), JSON))


def a_session_ended(place: Place, mark: str) -> Asked:
    place.states[mark] = start_session(place.client())
    return Asked("DELETE", "/mcp", b"{}", (bearer(BOT), f"Mcp-Session-Id: {place.states[mark]}"))


def a_configuration(place: Place, mark: str) -> Asked:
    document, etag = place.admin.declared()
    document["teams"] = {**document.get("teams", {}), mark: {}}
    headers = (bearer(ADMIN), "Content-Type: application/yaml", f"If-Match: {etag}")
    return Asked("PUT", "/api/v1/configuration", yaml.safe_dump(document).encode(), headers)


def a_team(_: Place, mark: str) -> Asked:
    return Asked("PUT", f"/api/v1/teams/{mark}", b"{}", (bearer(ADMIN), JSON))


def a_team_deleted(place: Place, mark: str) -> Asked:
    made = place.admin.request("PUT", f"/v1/teams/{mark}", {})
    assert made.status in (200, 201), made
    return Asked("DELETE", f"/api/v1/teams/{mark}", b"{}", (bearer(ADMIN), JSON))


def a_key_revoked(place: Place, mark: str) -> Asked:
    made = place.admin.request("POST", "/v1/keys", {"name": mark, "tools": []})
    assert made.status == 201, made
    return Asked("POST", f"/api/v1/keys/{mark}/revoke", b"{}", (bearer(ADMIN), JSON))


def a_rejected_call(place: Place, mark: str) -> Asked:
    answer = place.client().call("echo__count", {"id": mark})
    place.states[mark] = answer.error["data"]["approval"]
    path = f"/api/approvals/{place.states[mark]}/reject"
    return Asked("POST", path, told({"reason": "Not today."}), (bearer(BOSS), JSON))


def a_registration(_: Place, mark: str) -> Asked:
    document = {"client_name": mark, "redirect_uris": [REDIRECT]}
    document["token_endpoint_auth_method"] = "none"
    return Asked("POST", "/oauth/register", told(document), (JSON,))


def session_is_over(place: Place, mark: str) -> bool:
    return place.client().request("ping", Mcp_Session_Id=place.states[mark]).status == 404


def is_rejected(place: Place, mark: str) -> bool:
    answer = Client(f"{place.base}/api/approvals/{place.states[mark]}", BOSS).get(
        f"{place.base}/api/approvals/{place.states[mark]}"
    )
    return bool(answer.json["state"] == "rejected")


def is_revoked(place: Place, mark: str) -> bool:
    return bool(place.admin.request("GET", f"/v1/keys/{mark}").json["state"] == "revoked")


def is_registered(place: Place, mark: str) -> bool:
    return mark in place.launched.toolbus("clients", "list", "--json").stdout


def is_there(place: Place, mark: str) -> bool:
    return place.admin.request("GET", f"/v1/teams/{mark}").status == 200


EFFECTS: list[tuple[Callable[[Place, str], Asked], Callable[[Place, str], bool]]] = [
    (a_call, Place.arrived),
    (a_call_over_sse, Place.arrived),
    (an_executed_tool, Place.arrived),
    (a_session_ended, session_is_over),
    (a_configuration, is_there),
    (a_team, is_there),
    (a_team_deleted, lambda place, mark: not is_there(place, mark)),
    (a_key_revoked, is_revoked),
    (a_rejected_call, is_rejected),
    (a_registration, is_registered),
]


@pytest.mark.parametrize("how", ["length", "chunked"])
@pytest.mark.parametrize(("asked", "done"), EFFECTS, ids=[asked.__name__ for asked, _ in EFFECTS])
def test_what_is_cut_short_has_no_effect_and_what_is_whole_has(
    place: Place,
    asked: Callable[[Place, str], Asked],
    done: Callable[[Place, str], bool],
    how: str,
) -> None:
    cut, whole = (f"mark-{next(NUMBERS)}" for _ in range(2))
    with RawHttp(place.base) as connection:
        connection.send(asked(place, cut).cut(how))
        connection.half_close()
        assert connection.ended()
    with RawHttp(place.base) as connection:
        connection.send(asked(place, whole).whole)
        assert connection.answer().status < 300
    until_blocking(lambda: done(place, whole), "the whole request has its effect")
    assert not done(place, cut)


def exchanged(place: Place, data: bytes) -> int:
    """The status of the answer to these bytes."""
    with RawHttp(place.base) as connection:
        connection.send(data)
        return connection.answer().status


def test_a_credential_or_a_host_in_a_trailer_is_none(place: Place) -> None:
    mark = f"mark-{next(NUMBERS)}"
    body = told(calling("echo__say", 1, text=mark))
    late = f"0\r\n{bearer(BOT)}\r\n\r\n".encode()
    assert exchanged(place, chunked("POST", "/mcp", body, JSON, end=late)) == 401
    foreign = chunked("POST", "/mcp", body, JSON, bearer(BOT), end=b"0\r\nHost: localhost\r\n\r\n")
    assert exchanged(place, foreign.replace(b"Host: 127.0.0.1", b"Host: evil.example")) == 403
    assert exchanged(place, foreign.replace(b"Host: 127.0.0.1\r\n", b"")) == 403
    assert not place.arrived(mark)
    ours = chunked("POST", "/mcp", body, JSON, bearer(BOT), end=b"0\r\nHost: evil.example\r\n\r\n")
    assert exchanged(place, ours) == 200
    assert place.arrived(mark)


def test_trailers_without_end_are_refused_before_they_fill_the_memory(place: Place) -> None:
    mark = f"mark-{next(NUMBERS)}"
    body = told(calling("echo__say", 1, text=mark))
    with RawHttp(place.base) as connection:
        connection.send(chunked("POST", "/mcp", body, JSON, bearer(BOT), end=b"0\r\n"))
        assert connection.flood(b"X-Y: " + b"y" * 1000 + b"\r\n", 57 * MIB) < 57 * MIB
    assert exchanged(place, a_call(place, "after").whole) == 200
    assert not place.arrived(mark)
