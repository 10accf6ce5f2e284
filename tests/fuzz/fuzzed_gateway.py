"""Gateway with an upstream behind every endpoint, and one real request for each."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from fuzz.mutations import Request
from harness.clients.event_streams import Events
from harness.clients.mcp_client import Client
from harness.engines.engine import own_port
from harness.gateway.cluster import Upstream
from harness.gateway.family_gateway import calling, start_session, stateless
from harness.gateway.launched_gateway import Launched
from toolbus_common.base64url import encoded

KEY = "tbk_root_a-secret-that-is-fuzzed"
ADMIN = "tba_admin_a-secret-that-is-fuzzed"
READER = "tbr_reader_a-secret-that-is-fuzzed"
CUSTOMER_READER = "tbr_customer_a-secret-of-one-customer"
NARROW = "tbk_narrow_a-secret-for-nothing-of-echo"
APPROVAL = "0" * 32
PASSWORD = "a password that is fuzzed"
FORM = b"application/x-www-form-urlencoded"
REDIRECT = "http://127.0.0.1:1/back"
VERIFIER = "v" * 43


@dataclass(frozen=True)
class Seed:
    """A real request and its listener."""

    name: str
    port: int
    request: Request


@dataclass
class FuzzedGateway:
    """The gateway and the requests of its listeners."""

    launched: Launched
    reading: int
    seeds: list[Seed] = field(default_factory=list)

    @property
    def ops(self) -> int:
        """The port of the operations listener."""
        return urlsplit(self.launched.ready["ops"]["ingress"]).port or 0


@contextmanager
def place(directory: Path, **environment: str) -> Iterator[FuzzedGateway]:
    """Run everything."""
    with ExitStack() as stack:
        echo = Upstream(directory / "echo")
        made = Launched(
            directory / "gateway",
            "--log-format",
            "json",
            TOOLBUS_EGRESS_ALLOW="127.0.0.0/8",
            TOOLBUS_BROWSER_ORIGINS="https://scripts.example",
            TOOLBUS_AUDIT_HTTP_PORT=str(reading := own_port()),
            TOOLBUS_OAUTH_CLIENTS="clients.example",
            **environment,
        )
        made.directory.mkdir(parents=True)
        stack.callback(echo.kill)
        echo.start()
        made.configure(_configuration(echo))
        stack.callback(made.stop)
        made.start()
        made.until_listed(made.client(KEY), "echo__say")
        _account(made)
        found = FuzzedGateway(made, reading)
        stream = stack.enter_context(Events(Client(made.ready["endpoint"], KEY), path="/sse"))
        found.seeds += [*_agents(found, stream), *_people(found), *_others(found)]
        yield found


def _configuration(echo: Upstream) -> dict[str, object]:
    return {
        "servers": {"echo": {"url": echo.url}},
        "keys": {
            "root": {"secret": KEY, "tools": ["*"], "auto_execute": ["*"]},
            "narrow": {"secret": NARROW, "tools": ["other__*"]},
        },
        "admins": {"op": {"role": "admin", "secret": ADMIN}},
        "readers": {
            "analyst": {"customers": ["*"], "secret": READER},
            "customer": {"customers": ["acme"], "secret": CUSTOMER_READER},
        },
        "customers": {"acme": {}},
        "access": {"staff": {"claims": {"groups": "staff"}, "tools": ["*"]}},
    }


def _account(made: Launched) -> None:
    words = ("accounts", "add", "ann", "--group", "staff", "--password-stdin")
    added = made.toolbus(*words, stdin=f"{PASSWORD}\n")
    if added.returncode:
        raise RuntimeError(added.stderr)


def _request(method: str, target: str, body: bytes = b"", **headers: str) -> Request:
    fields = {"Host": "127.0.0.1", **{name.replace("_", "-"): v for name, v in headers.items()}}
    pairs = tuple((name.encode(), value.encode()) for name, value in fields.items())
    return Request(method.encode(), target.encode(), pairs, body)


def _json(method: str, target: str, value: object, secret: str = "", **headers: str) -> Request:
    fields = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}
    fields |= {"Authorization": f"Bearer {secret}"} if secret else {}
    return _request(method, target, json.dumps(value).encode(), **{**fields, **headers})


def _posted(target: str, fields: dict[str, str], **headers: str) -> Request:
    text = {"Content_Type": FORM.decode(), **headers}
    return _request("POST", target, urlencode(fields).encode(), **text)


def _agents(place: FuzzedGateway, stream: Events) -> Iterator[Seed]:
    """Return requests of agents and administrators."""
    port, bearer = place.launched.port, f"Bearer {KEY}"
    session = start_session(place.launched.client(KEY))
    say = calling("echo__say", 1, text="hello")
    modern, head = stateless("tools/call", say["params"], "a")
    listen, received = stateless(
        "subscriptions/listen", {"notifications": {"toolsListChanged": True}}
    )
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    posted = stream.data()  # the message endpoint of the open stream
    suggestion = {"name": "echo__say", "arguments": {"text": "hello"}}
    tool_use = {"type": "tool_use", "id": "a", "name": "echo__say", "input": {"text": "hello"}}
    entry = {"url": "http://127.0.0.1:9/mcp", "headers": {"X": "y"}}
    body = {
        "call": _json("POST", "/mcp", say, KEY),
        "call of a session": _json("POST", "/mcp", say, KEY, Mcp_Session_Id=session),
        "stateless call": _json("POST", "/mcp", modern, KEY, **head),
        "stateless listening": _json("POST", "/mcp", listen, KEY, **received),
        "list": _json("POST", "/mcp/echo", {**ping, "method": "tools/list", "params": {}}, KEY),
        "initialize": _json("POST", "/mcp", _initialize(), KEY),
        "batch": _json("POST", "/mcp", [say, ping], KEY, Mcp_Protocol_Version="2025-03-26"),
        "narrowed": _json("POST", "/mcp?mode=code", ping, KEY, x_toolbus_tools="echo__*"),
        "idempotent": _json("POST", "/mcp", say, KEY, Idempotency_Key="a-key", traceparent="00-1"),
        "stream": _request(
            "GET",
            "/mcp",
            Authorization=bearer,
            Mcp_Session_Id=session,
            Accept="text/event-stream",
            Last_Event_ID="s1.1-1",
        ),
        "end": _request("DELETE", "/mcp", Authorization=bearer, Mcp_Session_Id=session[:-2]),
        "old stream": _request("GET", "/sse/echo", Authorization=bearer),
        "old message": _json("POST", posted, ping, KEY),
        "agent card": _request("GET", "/a2a/agent-card.json", Authorization=bearer),
        "message": _json("POST", "/a2a", _message("message/stream"), KEY, A2A_Version="0.3"),
        "task": _json("POST", "/a2a", {**ping, "method": "GetTask", "params": {"id": "x"}}, KEY),
        "suggestions": _request("GET", "/v1/mcp/tools", Authorization=bearer),
        "suggestions of a form": _request(
            "GET", "/v1/mcp/tools?format=messages", Authorization=bearer
        ),
        "suggested": _json("POST", "/v1/mcp/tools/execute", suggestion, KEY),
        "suggested message": _json(
            "POST", "/v1/mcp/tools/execute", {"role": "assistant", "content": [tool_use]}, KEY
        ),
        "alive": _request("GET", "/healthz"),
        "resource": _request("GET", "/.well-known/oauth-protected-resource/mcp/echo"),
        "approvals": _request("GET", "/api/approvals", Authorization=bearer),
        "approval": _json("POST", f"/api/approvals/{APPROVAL}/reject", {"reason": "no"}, KEY),
        "approval page": _posted(
            f"/approvals/{APPROVAL}", {"action": "show", "key": KEY, "ticket": "x"}
        ),
        "read the configuration": _request(
            "GET", "/api/v1/configuration?format=yaml", Authorization=f"Bearer {ADMIN}"
        ),
        "entries": _request(
            "GET", "/api/v1/servers?limit=2&after=a", Authorization=f"Bearer {ADMIN}"
        ),
        "entry": _json("PUT", "/api/v1/servers/x?dry_run=true", entry, ADMIN, If_Match="*"),
        "key": _json("PUT", "/api/v1/keys/y?dry_run=true", {"tools": ["*"]}, ADMIN),
        "whole configuration": _request(
            "PUT",
            "/api/v1/configuration?dry_run=true",
            b"servers:\n  a: {url: 'http://127.0.0.1:9/mcp'}\n",
            Content_Type="application/yaml",
            Authorization=f"Bearer {ADMIN}",
            If_Match='"1"',
        ),
        "document": _request("GET", "/api/openapi.json"),
    }
    return (Seed(name, port, request) for name, request in body.items())


def _message(method: str) -> dict[str, object]:
    part = {"kind": "data", "data": {"text": "x"}}
    message = {"messageId": "1", "parts": [part], "metadata": {"skillId": "echo__say"}}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": message}}


def _initialize() -> dict[str, object]:
    info = {"name": "fuzz", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": info}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


def _people(place: FuzzedGateway) -> Iterator[Seed]:
    """Return requests of browsers and OAuth clients."""
    port = place.launched.port
    base = f"http://127.0.0.1:{port}"
    wanted = {
        "client_name": "fuzz",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code"],
        "token_endpoint_auth_method": "none",
        "jwks": {"keys": []},
    }
    client = Client(f"{base}/oauth/register")
    made = client.post({**wanted, "jwks": None}).json
    challenge = encoded(sha256(VERIFIER.encode()).digest())
    query = urlencode(
        {
            "response_type": "code",
            "client_id": made["client_id"],
            "redirect_uri": REDIRECT,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": "s",
            "scope": "tools",
            "resource": f"{base}/mcp",
        }
    )
    page = client.get(f"{base}/oauth/authorize?{query}")
    (ticket,) = re.findall(rb'name="ticket" value="([^"]+)"', page.body)
    cookie = page.headers.get("set-cookie", "").partition(";")[0]
    basic = f"Basic {b64encode(b'id:secret').decode()}"
    shown = {"ticket": ticket.decode()}
    code = {
        "grant_type": "authorization_code",
        "code": "x",
        "client_id": made["client_id"],
        "code_verifier": VERIFIER,
        "redirect_uri": REDIRECT,
        "resource": f"{base}/mcp",
    }
    exchanged = "urn:ietf:params:oauth:grant-type:token-exchange"
    jwt = "urn:ietf:params:oauth:token-type:jwt"
    assertion = "e30.e30.e30"
    body = {
        "register": _json("POST", "/oauth/register", wanted),
        "authorize": _request("GET", f"/oauth/authorize?{query}", Cookie=cookie),
        "sign in": _posted(
            "/oauth/sign-in",
            {**shown, "name": "ann", "password": PASSWORD, "code": ""},
            Cookie=cookie,
            Origin=base,
        ),
        "consent": _posted("/oauth/consent", {**shown, "answer": "allow"}, Cookie=cookie),
        "account": _request("GET", "/oauth/account", Cookie=cookie),
        "change account": _posted("/oauth/account", {**shown, "grant": "g"}, Cookie=cookie),
        "returned": _request("GET", "/oauth/callback/corp?state=x&code=y&iss=z", Cookie=cookie),
        "connected": _request("GET", "/oauth/connect/callback/x?state=x&code=y", Cookie=cookie),
        "device": _request("GET", "/oauth/device?user_code=ABCD-EFGH", Cookie=cookie),
        "device code": _posted(
            "/oauth/device/code", {"client_id": made["client_id"], "scope": "tools"}
        ),
        "token": _posted("/oauth/token", code, DPoP=assertion),
        "refresh": _posted(
            "/oauth/token",
            {"grant_type": "refresh_token", "refresh_token": "x"},
            Authorization=basic,
        ),
        "exchange": _posted(
            "/oauth/token",
            {
                "grant_type": exchanged,
                "subject_token": assertion,
                "subject_token_type": jwt,
                "client_assertion": assertion,
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            },
        ),
        "bearer": _posted(
            "/oauth/token",
            {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion},
        ),
        "revoke": _posted("/oauth/revoke", {"token": assertion}, Authorization=basic),
        "introspect": _posted("/oauth/introspect", {"token": assertion}, Authorization=basic),
        "keys": _request("GET", "/oauth/jwks"),
        "client document": _request("GET", "/oauth/client.json"),
        "client keys": _request("GET", "/oauth/client-keys"),
        "identity keys": _request("GET", "/oauth/identity-keys"),
        "described": _request("GET", "/.well-known/oauth-authorization-server"),
        "a token's call": _json("POST", "/mcp", calling("echo__say", 1), assertion, DPoP=assertion),
        "preflight": _request(
            "OPTIONS",
            "/mcp",
            Origin="https://scripts.example",
            Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="a",
        ),
    }
    return (Seed(name, port, request) for name, request in body.items())


def _others(place: FuzzedGateway) -> Iterator[Seed]:
    """Return requests of BI tools and health probes."""
    sql = b"SELECT count() FROM events WHERE key = {k:String} FORMAT JSON"
    user = {"X_ClickHouse_User": "analyst", "X_ClickHouse_Key": READER}
    basic = {"Authorization": f"Basic {b64encode(f'analyst:{READER}'.encode()).decode()}"}
    where = "/?param_k=root&query_id=q&default_format=CSV&max_result_rows=5&session_timezone=UTC"
    yield Seed("read", place.reading, _request("POST", where, sql, **user))
    yield Seed(
        "read by GET",
        place.reading,
        _request("GET", "/?query=SELECT+1&database=toolbus", b"", **basic),
    )
    yield Seed("ping", place.reading, _request("GET", "/ping"))
    for path in ("/healthz", "/readyz", "/metrics"):
        yield Seed(f"ops {path}", place.ops, _request("GET", path))
