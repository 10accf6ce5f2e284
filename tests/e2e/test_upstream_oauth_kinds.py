"""Servers of every kind that require OAuth: each user's own token, and no other's."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.apis.protected_apis import ProtectedApis
from harness.audit.written_files import files_in
from harness.clients.form_browser import Browser
from harness.clients.mcp_client import Client
from harness.engines.http_engine import redirect_of
from harness.gateway.launched_gateway import Launched
from harness.oauth.protected_processes import OAuthServer, ProtectedServer
from harness.waits import until_blocking

PASSWORD = "correct horse battery"
KEYS = {name: f"tbk_{name}_the-secret-of-these-tests" for name in ("ann", "bob", "eve")}
PROGRAM = Path(__file__).parents[1] / "harness" / "upstreams" / "stdio_server.py"
# By kind: the tool that returns whose token a call carried, and its arguments.
SUBJECT_TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "rest": ("rest__whoami", {}),
    "graph": ("graph__whoami", {}),
    "rpc": ("rpc__Shop_Echo", {}),
    "several": ("several__whoami", {}),
    "byenv": ("byenv__whoami", {}),
    "byfile": ("byfile__whoami", {}),
    "function": ("function__whoami", {}),
}
PROCESSES = ("byenv", "byfile", "function")


def servers(
    far: OAuthServer, apis: ProtectedApis, several: list[ProtectedServer], directory: Path
) -> dict[str, Any]:
    own = {"tokens": "user", "issuer": far.issuer}
    (directory / "functions.py").write_text(
        "import os, json, urllib.request, urllib.parse\n"
        "def whoami() -> str:\n"
        "    body = urllib.parse.urlencode({'token': os.environ['API_TOKEN']}).encode()\n"
        "    with urllib.request.urlopen(os.environ['ISSUER'] + '/introspect', body) as response:\n"
        "        return json.loads(response.read()).get('subject') or 'nobody'\n"
    )
    program, env = [sys.executable, str(PROGRAM)], {"ISSUER": far.issuer}
    return {
        "rest": {"openapi": f"{apis.origin}/openapi.json", "oauth": own, "probe": 0},
        "graph": {"graphql": f"{apis.origin}/graphql", "oauth": own, "probe": 0},
        "rpc": {"grpc": f"grpc://127.0.0.1:{apis.grpc_port}", "oauth": own, "probe": 0},
        "several": {
            "replicas": [each.url for each in several],
            "oauth": {"tokens": "user"},
            "probe": 0,
        },
        "byenv": {
            "command": [*program, "env", "API_TOKEN"],
            "env": env,
            "oauth": {**own, "env": "API_TOKEN"},
        },
        "byfile": {
            "command": [*program, "file", "~/.secrets/token"],
            "env": env,
            "oauth": {**own, "file": "~/.secrets/token"},
        },
        "function": {
            "python": ["functions:whoami"],
            "cwd": str(directory),
            "env": env,
            "oauth": {**own, "env": "API_TOKEN"},
        },
    }


class OAuthGateway:
    """A gateway with servers of every kind, and the users connected there."""

    def __init__(self, launched: Launched, far: OAuthServer) -> None:
        self.launched = launched
        self.far = far
        self.ready: set[tuple[str, str]] = set()

    def client(self, user: str) -> Client:
        return self.launched.client(KEYS[user])

    def answer_of(self, user: str, kind: str) -> str:
        """Return the answer of a call."""
        tool, arguments = SUBJECT_TOOLS[kind]
        return json.dumps(self.client(user).call(tool, arguments).json)

    def connected(self, user: str, kind: str) -> None:
        """Connect a user's own account, unless it is connected."""
        if (user, kind) in self.ready:
            return
        client, (tool, _) = self.client(user), SUBJECT_TOOLS[kind]
        connect_tool = f"{kind}__connect_account"
        until_blocking(
            lambda: client.sees(connect_tool) or client.sees(tool), f"{kind} is listed", 90
        )
        until_blocking(self.launched.up_to_date, "every service has the change", 90)
        request = until_blocking(
            lambda: _link_in(client.call(tool if client.sees(tool) else connect_tool, {}).json),
            f"a link of {kind}",
            90,
        )
        self.far.say(subject=f"{user}@far")
        browser = Browser(self.launched.ready["endpoint"].removesuffix("/mcp"))
        page = browser.sign_in(browser.get(request), user, PASSWORD)
        sent = browser.post("/oauth/connect", ticket=page.ticket, answer="allow")
        assert sent.status == 303, sent.text
        done = browser.get(redirect_of(sent.location))
        assert "Connected" in done.text, done.text
        self.launched.until_listed(client, tool)
        self.ready.add((user, kind))

    def expire(self) -> None:
        """Expire every token; processes cannot detect this, so their connections are revoked."""
        for user, kind in [each for each in self.ready if each[1] in PROCESSES]:
            done = self.launched.toolbus("connections", "revoke", kind, "--user", user)
            assert done.returncode == 0, done.stderr
            self.ready.discard((user, kind))
        self.far.expire()


def _link_in(answer: Any) -> str:
    words = json.dumps(answer).replace('"', " ").split()
    return next((word for word in words if "/oauth/connect/" in word), "")


@pytest.fixture(scope="module", params=["separate", "fused"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OAuthGateway]:
    base = tmp_path_factory.mktemp(request.param)
    options = ["--separate"] if request.param == "separate" else []
    gateway = Launched(base, *options, TOOLBUS_EGRESS_ALLOW="127.0.0.0/8 ::1")
    with OAuthServer(base / "far").running() as far:
        apis = ProtectedApis(base / "apis", far.issuer)
        first = ProtectedServer(base / "first", far.issuer)
        second = ProtectedServer(base / "second", far.issuer, resource=first.url)
        try:
            for each in (apis, first, second):
                each.start()
            gateway.configure(
                {
                    "servers": servers(far, apis, [first, second], base),
                    "users": {name: {} for name in KEYS},
                    "keys": {
                        name: {"secret": secret, "user": name, "tools": ["*"]}
                        for name, secret in KEYS.items()
                    },
                    "access": {"staff": {"claims": {"groups": "staff"}, "tools": ["*"]}},
                }
            )
            gateway.start()
            for name in KEYS:
                words = ("accounts", "add", name, "--group", "staff", "--password-stdin")
                done = gateway.toolbus(*words, stdin=PASSWORD + "\n")
                assert done.returncode == 0, done.stderr
            yield OAuthGateway(gateway, far)
        finally:
            gateway.stop()
            for each in (apis, first, second):
                each.kill()


@pytest.mark.parametrize("kind", SUBJECT_TOOLS)
def test_two_users_call_with_two_tokens_and_others_are_asked_to_connect(
    gateway: OAuthGateway, kind: str
) -> None:
    gateway.connected("ann", kind)
    assert "ann@far" in gateway.answer_of("ann", kind)
    assert "/oauth/connect/" in gateway.answer_of("bob", kind), "bob has connected nothing"
    assert "@far" not in gateway.answer_of("bob", kind)
    gateway.connected("bob", kind)
    for _ in range(3):
        for user, other in (("ann", "bob"), ("bob", "ann")):
            result = gateway.answer_of(user, kind)
            assert f"{user}@far" in result, result
            assert f"{other}@far" not in result


@pytest.mark.parametrize("kind", SUBJECT_TOOLS)
def test_a_rejected_or_expired_token_is_renewed_and_no_call_fails(
    gateway: OAuthGateway, kind: str
) -> None:
    for user in ("ann", "bob"):
        gateway.connected(user, kind)
    if kind in PROCESSES:  # a process reports no rejected token: its next token is scheduled
        _short_token_renewed(gateway, kind)
        return
    before = len(gateway.far.seen("refresh_token"))
    gateway.expire()
    for user in ("ann", "bob"):
        assert f"{user}@far" in gateway.answer_of(user, kind)
    assert len(gateway.far.seen("refresh_token")) >= before + 2


def _short_token_renewed(gateway: OAuthGateway, kind: str) -> None:
    """Check that a token of twenty seconds is replaced before it expires, without a failed call."""
    gateway.far.say(seconds=20)
    try:
        gateway.ready.discard(("eve", kind))
        gateway.connected("eve", kind)
        first = gateway.answer_of("eve", kind)
        assert "eve@far" in first
        before = len(gateway.far.seen("refresh_token"))
        began = gateway.client("eve").call(f"{kind}__pid").json if kind == "byfile" else {}

        def renewed() -> bool:
            time.sleep(0.25)  # every call passes through the whole gateway
            assert "eve@far" in gateway.answer_of("eve", kind), "no call uses an expired token"
            return len(gateway.far.seen("refresh_token")) > before

        until_blocking(renewed, "the next token", 60)
        assert "eve@far" in gateway.answer_of("eve", kind)
        if kind == "byfile":
            now = gateway.client("eve").call(f"{kind}__pid").json
            assert now["result"] == began["result"], (
                "the file is rewritten, and the process continues"
            )
    finally:
        gateway.far.say(seconds=3600)
        gateway.launched.toolbus("connections", "revoke", kind, "--user", "eve")
        gateway.ready.discard(("eve", kind))


@pytest.mark.parametrize("kind", SUBJECT_TOOLS)
def test_disconnecting_ends_the_users_process_and_calls(gateway: OAuthGateway, kind: str) -> None:
    for user in ("ann", "bob"):
        gateway.connected(user, kind)
    pids = {}
    if kind in ("byenv", "byfile"):
        pids = {user: _pid(gateway, user, kind) for user in ("ann", "bob")}
        assert not pids["ann"] & pids["bob"]
    done = gateway.launched.toolbus("connections", "revoke", kind, "--user", "bob")
    assert done.returncode == 0, done.stderr
    gateway.ready.discard(("bob", kind))
    if pids:
        until_blocking(lambda: not any(map(_runs, pids["bob"])), "bob's process has ended", 60)
        assert any(map(_runs, pids["ann"])), "the listing process may have been restarted"
    until_blocking(
        lambda: "/oauth/connect/" in gateway.answer_of("bob", kind), "bob is asked to connect", 60
    )
    assert "ann@far" in gateway.answer_of("ann", kind)
    gateway.connected("bob", kind)
    assert "bob@far" in gateway.answer_of("bob", kind)


def _pid(gateway: OAuthGateway, user: str, kind: str) -> set[str]:
    """Return the processes of a user on this machine; inside the namespace the number differs."""
    text = gateway.client(user).call(f"{kind}__begins").text
    return _process_with(text, kind)


def _process_with(mark: str, kind: str) -> set[str]:
    """Return the processes whose token ends so: the user's own, and perhaps the listing one."""
    programs = (each for each in Path("/proc").iterdir() if each.name.isdigit())
    result = _environment if kind == "byenv" else _file
    found = {
        each.name for each in programs if _is_program(each, kind) and result(each).endswith(mark)
    }
    assert found, f"no process has a token that ends with {mark}"
    return found


def _is_program(process: Path, kind: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    how = b"env" if kind == "byenv" else b"file"
    return str(PROGRAM).encode() in words and how in words and b"-I" not in words


def _environment(process: Path) -> str:
    try:
        items = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((each.decode() for each in items if each.startswith(b"API_TOKEN=")), "")


def _file(process: Path) -> str:
    home = str(Path.home()).lstrip("/")
    try:
        return (process / "root" / home / ".secrets/token").read_text()
    except OSError:
        return ""


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("kind", ["byenv", "byfile"])
def test_a_process_gets_its_token_where_configured_and_never_as_an_argument(
    gateway: OAuthGateway, kind: str
) -> None:
    gateway.connected("ann", kind)
    text = gateway.client("ann").call(f"{kind}__words").text
    assert text == ("False " if kind == "byenv" else "False 0o600 read-only")
    token = gateway.client("ann").call(f"{kind}__begins").text
    every = [each / "cmdline" for each in Path("/proc").iterdir() if each.name.isdigit()]
    for each in every:
        try:
            assert token.encode() not in each.read_bytes()
        except OSError:
            continue


@pytest.mark.parametrize(("kind", "tool"), [("rest", "rest__repeat"), ("graph", "graph__repeat")])
def test_a_token_repeated_by_an_api_is_redacted(
    gateway: OAuthGateway, kind: str, tool: str
) -> None:
    gateway.connected("ann", kind)
    body = json.dumps(gateway.client("ann").call(tool).json)
    assert "(secret)" in body
    assert "far~" not in body


def test_a_token_is_in_no_log_and_no_file(gateway: OAuthGateway) -> None:
    gateway.connected("ann", "byenv")
    logs = gateway.launched.logs()
    assert "far~" not in logs
    for path, content in files_in(gateway.launched.state_dir):
        assert b"far~" not in content, path
