"""Canaries: secrets are planted everywhere, all of them are used, and none leaks."""

import json
from base64 import b32decode, b64encode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import HTTPConnection
from secrets import token_hex
from time import time
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from harness.clients.admin_client import at, named
from harness.clients.form_browser import Browser, Page
from harness.clients.mcp_client import Answer, Client
from harness.engines.http_engine import redirect_of
from harness.gateway.canary_gateway import CanaryGateway, running_canaries
from harness.gateway.family_gateway import META, stateless
from harness.gateway.visible_outputs import Outputs, current_outputs, delayed_outputs
from harness.samples.canaries import canaries_in, canary
from harness.services.authorization_service import hashed
from harness.waits import until_blocking

REDIRECT = "http://127.0.0.1:9/callback"
FORM = "application/x-www-form-urlencoded"
LEAKED = canary("leak")
HOOKS = ("webhook", "webhook by file")
SEALED = """
SELECT customer FROM checkpoints JOIN (
    SELECT customer, max(stream_seq) AS newest FROM events WHERE event = '{event}' GROUP BY customer
) AS last_event USING customer WHERE customer = '{customer}' AND to >= newest
"""
TRIES = 8  # calls of a server that has exited: more than open a breaker


@dataclass
class Scenario:
    """The use of the planted secrets; secrets created on the way are planted too."""

    at: CanaryGateway
    failures: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)  # to another customer
    outputs: Outputs = field(default_factory=dict)

    @property
    def secrets(self) -> dict[str, str]:
        """All secrets so far."""
        return self.at.secrets

    def client(self, secret: str) -> Client:
        return self.at.launched.client(secret)

    def keep_failure(self, answer: Answer) -> Answer:
        """Keep an answer that is a failure."""
        if answer.status >= 400 or b'"error"' in answer.body or b'"isError":true' in answer.body:
            self.failures += [json.dumps(answer.headers).encode(), answer.body]
        return answer

    def form(self, path: str, basic: str = "", **form: str) -> dict[str, Any]:
        """Send a client's request to the authorization server."""
        authorization = (
            {"Authorization": f"Basic {b64encode(basic.encode()).decode()}"} if basic else {}
        )
        response = Client(f"{self.at.base}{path}").post(
            urlencode(form).encode(), Content_Type=FORM, **authorization
        )
        return dict(self.keep_failure(response).json)

    # -- agents ------------------------------------------------------------------------------

    def agents_call(self) -> None:
        """Make calls that succeed, and calls that fail in every way."""
        ann, word = self.client(self.secrets["ann"]), self.secrets["argument"]
        listed = ("blab__say", "blab__die", "calc__digest", "docs__connect_account", "jobs__whoami")
        self.at.launched.until_listed(ann, *listed)
        assert ann.call("blab__say", {"text": word}).text == self.secrets["words"]
        given = self.secrets["variable"] + self.secrets["header by variable"]
        assert ann.call("calc__digest").text == sha256(given.encode()).hexdigest()
        assert "machine" in ann.call("jobs__whoami").text
        assert self.keep_failure(ann.call("blab__die", {"text": word})).code
        assert self.secrets["words"] in str(ann.call("blab__fault", {"text": word}).error)
        self.keep_failure(ann.call("blab__say", {"text": [word]}))
        self.keep_failure(ann.post(f'{{"jsonrpc": "2.0", "id": 1, "{word}'.encode()))
        self.keep_failure(ann.request("tools/call", {"name": "blab__say", "arguments": word}))
        bot, waiting = self.client(self.secrets["bot"]), self.secrets["waiting"]
        assert (
            self.keep_failure(bot.call("blab__count", {"id": waiting})).code == "approval_required"
        )
        params = {"name": "blab__count", "arguments": {"id": f"{waiting} later"}}
        body, headers = stateless("tools/call", params, extensions={f"{META}tasks": {}})
        assert bot.post(body, **headers).json["result"]["resultType"] == "task"
        params = {"name": "blab__say", "arguments": {"text": word}}
        once = {**params, "_meta": {"dev.toolbus/idempotency-key": "once"}}
        for _ in range(2):  # the second gets the stored outcome of the first
            assert ann.request("tools/call", once).text == self.secrets["words"]

    def a_process_dies(self) -> None:
        """Let a process print its input and ann's arguments and exit; then call it as eve."""
        ann, eve = self.client(self.secrets["ann"]), self.client(self.secrets["eve"])
        fields = {"card": self.secrets["card"], "words": self.secrets["last words"]}
        self.at.launched.until_listed(ann, "frail__crash", "frail__calm")
        assert eve.call("frail__calm").text == "calm"
        self.at.doom(*fields.values())
        assert self.keep_failure(ann.call("frail__crash", fields)).code == "upstream_dead"
        for client in (eve, ann):
            for _ in range(TRIES):
                answer = client.call("frail__calm")
                assert answer.code in ("upstream_dead", "breaker_open"), answer.body
                self.replies += [json.dumps(answer.headers).encode(), answer.body]
            self.replies.append(client.request("tools/list").body)
        for server in ("frail", "sulking"):
            self.at.launched.eventual_rows(
                f"SELECT reason FROM events WHERE event = 'server.lost' AND server = '{server}'"
            )

    def strangers_come(self) -> None:
        """Send keys that are invalid, and keys for something else."""
        self.secrets["wrong key"] = f"tbk_nobody_{canary('nobody')}"
        self.secrets["wrong token"] = f"eyJ{canary('token')}.e30.x"
        for name in ("wrong key", "wrong token", "operator", "reader"):
            assert (
                self.keep_failure(self.client(self.secrets[name]).request("tools/list")).status
                == 401
            )
        for name in ("operator", "wrong key", "ann"):
            at(self.at.launched, self.secrets[name]).request("GET", "/v1/servers")
        for name, status in (("reader", 200), ("wrong key", 403)):
            assert self.query_status(self.secrets[name]) == status

    def query_status(self, secret: str) -> int:
        """Return the status of a reader's query."""
        with closing(HTTPConnection("127.0.0.1", self.at.reading, timeout=60)) as connection:
            keys = {"X-ClickHouse-User": "analyst", "X-ClickHouse-Key": secret}
            connection.request("POST", "/", "SELECT count() FROM events", keys)
            answer = connection.getresponse()
            self.failures.append(answer.read())
            return answer.status

    # -- people and machines -----------------------------------------------------------------------

    def people_sign_in(self) -> Browser:
        """Let ann's client get tokens, use them, and use one of them twice."""
        about = {"password": hashed(self.secrets["password"]), "groups": ["staff"], "totp": True}
        self.secrets["totp"] = self.at.action("add_account", "ann", **about)["totp_secret"]
        self.secrets["verifier"] = f"{canary('verifier')}{token_hex(16)}"
        browser = Browser(self.at.base)
        result = self.code(browser)
        self.secrets["code"] = result["code"]
        request = {"client_id": self.registered, "redirect_uri": REDIRECT, "code": result["code"]}
        request |= {
            "grant_type": "authorization_code",
            "resource": self.at.launched.ready["endpoint"],
        }
        given = self.form("/oauth/token", **request, code_verifier=self.secrets["verifier"])
        self.secrets["access token"] = given["access_token"]
        self.secrets["refresh token"] = given["refresh_token"]
        assert "blab__say" in self.client(given["access_token"]).tools()
        again = {"grant_type": "refresh_token", "client_id": self.registered}
        result = self.form("/oauth/token", **again, refresh_token=given["refresh_token"])
        self.secrets["second refresh token"] = result["refresh_token"]
        result = self.form("/oauth/token", **again, refresh_token=given["refresh_token"])
        assert result["error"] == "invalid_grant"
        self.secrets.update({f"cookie {name}": result for name, result in browser.cookies.items()})
        return browser

    def code(self, browser: Browser) -> dict[str, str]:
        """Return an authorization code, after failed attempts and a sign-in at the provider."""
        document = {"client_name": "A client", "redirect_uris": [REDIRECT]}
        registered = Client(f"{self.at.base}/oauth/register").post(
            {**document, "token_endpoint_auth_method": "none"}
        )
        self.registered = registered.json["client_id"]
        challenge = sha256(self.secrets["verifier"].encode()).digest()
        request = {
            "response_type": "code", "client_id": self.registered, "redirect_uri": REDIRECT,
            "code_challenge": urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256", "resource": self.at.launched.ready["endpoint"],
        }  # fmt: skip
        page = browser.get(f"{self.at.base}/oauth/authorize?{urlencode(request)}")
        self.through_the_company(page, browser)
        page = self.wrong(browser, page, self.secrets["wrong password"], "")
        page = self.wrong(browser, page, self.secrets["password"], self.secrets["wrong code"])
        return browser.answer(self.signed_in(browser, page)).parameters

    def wrong(self, browser: Browser, page: Page, password: str, code: str) -> Page:
        page = browser.sign_in(page, "ann", password, code)
        assert page.status == 403
        self.failures.append(page.text.encode())
        return page

    def signed_in(self, browser: Browser, page: Page) -> Page:
        factor = TOTP(b32decode(self.secrets["totp"]), 6, SHA1(), 30)
        page = browser.sign_in(
            page, "ann", self.secrets["password"], factor.generate(time()).decode()
        )
        assert page.status == 200, page.text
        return page

    def through_the_company(self, page: Page, browser: Browser) -> None:
        """Sign in at the OpenID provider in another tab."""
        away = browser.post("/oauth/sign-in", ticket=page.ticket, issuer="corp")
        back = browser.get(redirect_of(away.link))
        assert back.status == 200, back.text
        browser.cookies = {
            name: value for name, value in browser.cookies.items() if "session" not in name
        }

    def machines_come(self) -> None:
        """Request a machine's token with its secret and with a wrong one."""
        created = self.at.action(
            "add_client", "nightly", redirect_uris=[],
            token_endpoint_auth_method="client_secret_basic",
        )  # fmt: skip
        self.secrets["client"], self.secrets["wrong client"] = created["secret"], canary("client")
        for name, key in (("wrong client", "error"), ("client", "access_token")):
            basic = f"{created['id']}:{self.secrets[name]}"
            result = self.form("/oauth/token", basic, grant_type="client_credentials")
            assert key in result, result
        self.secrets["machine's token"] = result["access_token"]

    def ann_connects(self, browser: Browser) -> None:
        """Connect ann's account at another service, whose tokens expire once and are renewed."""
        ann = self.client(self.secrets["ann"])
        text = ann.call("docs__connect_account").text
        page = browser.get(next(word for word in text.split() if "/oauth/connect/" in word))
        sent = browser.post("/oauth/connect", ticket=page.ticket, answer="allow")
        back = redirect_of(sent.location)
        self.secrets["server's code"] = dict(
            each.split("=", 1) for each in back.partition("?")[2].split("&")
        )["code"]
        assert "Connected" in browser.get(back).text
        self.at.launched.until_listed(ann, "docs__whoami")
        assert ann.call("docs__whoami").text == "ann@far"
        self.at.far.expire()
        assert ann.call("docs__whoami").text == "ann@far"
        (form,) = self.at.far.seen("refresh_token")
        self.secrets["server's refresh token"] = form["refresh_token"]
        (form,) = self.at.far.seen("authorization_code")
        self.secrets["verifier at the server"] = form["code_verifier"]

    # -- leaks -------------------------------------------------------------------------------

    def leak(self) -> None:
        """Leak one secret through every channel."""
        log = self.at.launched.directory / "leaking.log"
        process, port, ops = self.at.leaking(log)
        try:
            process.wait_ready()
            client = Client(f"http://127.0.0.1:{port}/mcp", self.secrets["ann"])
            run = token_hex(16)
            until_blocking(
                lambda: not client.call("blab__say", {"text": LEAKED}, run).code, "a call"
            )
            self.at.collector.of(run, "tools/call blab__say")
            self.outputs["its metrics"] = [client.get(f"http://127.0.0.1:{ops}/metrics").body]
        finally:
            process.stop()
        self.outputs["its log"] = [process.log.encode()]
        label = at(self.at.launched, self.secrets["operator"])
        assert label.request("PUT", named("labels", "blab__*"), [LEAKED]).status == 201
        items = ("table", "files", "sink", "webhooks")
        until_blocking(
            lambda: all(
                canaries_in({"": LEAKED}, delayed_outputs(self.at)[channel]) for channel in items
            ),
            "the event of it everywhere",
        )
        for name in HOOKS:  # each in its own time
            until_blocking(lambda name=name: self.hooked(name), f"the event of it at {name}")  # type: ignore[misc]
        for customer, event in (("default", "config.changed"), ("rival", "call.failed")):
            self.at.launched.eventual_rows(SEALED.format(customer=customer, event=event))

    def hooked(self, name: str) -> bool:
        """Return whether a webhook delivered the leaked secret, and so every event before it."""
        items = [each for each in self.at.receiver.received if LEAKED.encode() in each.body]
        secret = self.secrets[name]
        return any(each.path == "/hook" and each.signed_with(secret) for each in items)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """Run every step once, and collect the output of every channel."""
    with running_canaries(tmp_path_factory.mktemp("canaries")) as secrets:
        result = Scenario(secrets)
        result.agents_call()
        result.a_process_dies()
        result.strangers_come()
        browser = result.people_sign_in()
        result.machines_come()
        result.ann_connects(browser)
        result.leak()
        result.outputs |= current_outputs(secrets) | {
            "failures": result.failures,
            "replies": result.replies,
        }
        yield result


def test_every_secret_is_used(scenario: Scenario) -> None:
    received_heads = [head for head in scenario.at.blabbing.heads if "x-inline" in head]
    heads = {"x-inline": "header", "x-file": "header by file", "x-variable": "header by variable"}
    assert all(
        received_heads[-1][name] == scenario.secrets[secret] for name, secret in heads.items()
    )
    client = f"gateway:{scenario.secrets['client of servers']}".encode()
    (form, *_) = scenario.at.far.seen("client_credentials")
    assert b64encode(client).decode() in form["authorization"]
    received = scenario.at.receiver.received
    hooks = [each for each in received if each.path == "/hook"]
    for name in HOOKS:
        assert any(each.signed_with(scenario.secrets[name]) for each in hooks), name
    (head, *_) = [each.headers for each in received if each.path == "/sink"]
    assert head["authorization"] == f"Splunk {scenario.secrets['sink']}"
    assert scenario.at.collector.headers[0]["x-token"] == scenario.secrets["collector"]


def test_no_secret_leaks_anywhere(scenario: Scenario) -> None:
    received = {
        channel: canaries_in(scenario.secrets, message) - MEANT_FOR.get(channel, set())
        for channel, message in scenario.outputs.items()
    }
    assert {channel: names for channel, names in received.items() if names} == {}


def test_operators_read_a_dead_processs_last_lines_with_secrets_redacted(
    scenario: Scenario,
) -> None:
    """Check also that no other channel shows these lines."""
    word = {"": scenario.secrets["last words"]}
    assert {
        channel for channel, message in scenario.outputs.items() if canaries_in(word, message)
    } == {"logs"}
    lines = [each for each in scenario.outputs["logs"][0].splitlines() if canaries_in(word, [each])]
    for server in (b"frail", b"sulking"):
        assert any(server in each and b"[redacted]" in each for each in lines), server


def test_another_customer_learns_only_the_exit_code_of_a_dead_server(scenario: Scenario) -> None:
    assert any(b"exited with 3" in each for each in scenario.replies)


# A server's output is for its caller, its standard error for operators. Administrators decide about
# the arguments that wait for approval.
MEANT_FOR = {"failures": {"words"}, "logs": {"last words"}, "administration": {"waiting"}}
CHANNELS = {
    "logs": b"process.ready", "table": b"blab", "stream": b"blab", "files": b"blab",
    "bundle": b"blab", "report": b"blab", "sink": b"blab", "webhooks": b"approval.requested",
    "traces": b"tools/call", "metrics": b"toolbus_calls", "failures": b"error",
    "status": b"blab", "configuration": b"(set)", "disk": b"call.allowed",
    "its log": b"process.ready", "its metrics": b"toolbus_calls",
    "replies": b"frail", "rival's bundle": b"frail", "status as shown": b"frail",
    "administration": b"frail",
}  # fmt: skip


def test_every_channel_is_really_monitored(scenario: Scenario) -> None:
    assert scenario.outputs.keys() == CHANNELS.keys()
    for channel, word in CHANNELS.items():
        assert any(word in each for each in scenario.outputs[channel]), channel


def test_a_leak_is_found_in_every_channel_it_reaches(scenario: Scenario) -> None:
    """Leak through a service's output and through an event."""
    leaking = {"its log", "its metrics", "traces"}
    recording = {"table", "stream", "files", "sink", "webhooks", "bundle", "disk"}
    recording |= {"configuration", "administration"}
    received = {
        channel
        for channel, message in scenario.outputs.items()
        if canaries_in({"": LEAKED}, message)
    }
    assert received == leaking | recording
