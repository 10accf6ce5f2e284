"""Operator who consents at the suite's authorization servers, and an agent that then calls."""

import asyncio
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import yaml

from conformance.gateway import KEY, configuration
from conformance.suite import FAILED
from harness.clients.form_browser import Browser
from harness.clients.mcp_client import Client
from harness.gateway.launched_gateway import Launched
from harness.services.oauth_connections import connection_store
from harness.waits import until_blocking
from toolbus_common.config_store.loading.loader import load
from toolbus_common.contracts import IdentityReply, IdentityRequest, ServersQuery, ServersReply
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.settings import Settings
from toolbus_oauth.keys.unverified_jwt import parse_unverified
from toolbus_oauth.upstreams.connections.records import ProviderTokens

MAX_CONSENTS = 4
LISTED_SECONDS = 20.0
_LINK_COMMAND = "connections connect"
_NEVER = ("is impossible", "already requested")
_LONGEST_NAME = 24
PERSON, PROVIDER = "demo", "corp"


@dataclass
class ScenarioPlayer:
    """The suite's client scenarios, played one after the other at a running gateway."""

    launched: Launched
    _count: int = 0

    def do(self, order: dict[str, Any]) -> str:
        """Play a scenario and return what the agent observed."""
        self._count += 1
        scenario = order["scenario"].partition("/")[2][:_LONGEST_NAME].strip("-")
        # a name of its own: nothing of an earlier scenario is reused
        name = f"{scenario}-{self._count}"
        play = Play(self.launched, name, order)
        try:
            play.declare()
            play.run()
        finally:
            play.leave()
        return "\n".join(play.observations)


@dataclass
class Play:
    """One scenario."""

    launched: Launched
    server: str
    order: dict[str, Any]
    observations: list[str] = field(default_factory=list)
    _consented: bool = False

    def declare(self) -> None:
        """Declare the mock server as the only upstream, with the scenario's client."""
        context, url = self.order["context"], self.order["url"]
        oauth = oauth_of(url, context, self.launched.directory)
        document = configuration("") | {"servers": {self.server: {"url": url, "oauth": oauth}}}
        if "provider" in oauth:
            document["keys"]["conformance"]["user"] = PERSON
            document["users"] = {PERSON: {}}
            document["issuers"] = {
                PROVIDER: {"url": context["idp_issuer"], "client_id": context["idp_client_id"]}
            }
            asyncio.run(self._store_id_token())
        self._apply(document)

    def run(self) -> None:
        """List, and call every listed tool, with consent whenever it is required."""
        consents = 0
        while not (tools := self._tools()):
            consents += 1
            if consents > 1 or not self._consent():
                return
        for tool in tools:
            while consents < MAX_CONSENTS:
                text = self._agent.call(tool, {"a": 5, "b": 3}).body.decode()
                self.observations.append(f"{tool} {text}")
                if _LINK_COMMAND not in text:
                    break
                consents += 1
                self._consent()

    def leave(self) -> None:
        """Remove the mock server, which does not end while the gateway holds one of its streams."""
        self._apply(configuration(""))
        until_blocking(lambda: self._row() is None, "the gateway leaves the mock server")

    @property
    def _agent(self) -> Client:
        return Client(f"{self.launched.ready['endpoint']}/{self.server}", KEY)

    def _apply(self, document: dict[str, Any]) -> None:
        loaded = load(yaml.safe_dump(document), os.environ)
        assert not loaded.problems, loaded.problems
        self.launched.declare(loaded.configuration)

    def _tools(self) -> list[str]:
        """Return the listed tools once the server is connected or has failed for good."""
        until = time.monotonic() + LISTED_SECONDS
        while time.monotonic() < until:
            answer = self._agent.request("tools/list")
            if answer.status == 200 and (found := answer.json["result"]["tools"]):
                until_blocking(self.launched.up_to_date, "every service knows them")
                return [tool["name"] for tool in found]
            reason = (self._row() or {}).get("last_failure", "")
            waits = _LINK_COMMAND in reason and not self._consented
            if waits or any(each in reason for each in _NEVER):
                self.observations.append(reason)
                return []
            time.sleep(0.1)
        return []

    def _row(self) -> dict[str, Any] | None:
        """Return executor's state of this server; None if executor has no server of the name."""

        async def request(bus: Bus) -> ServersReply:
            return await RequestReply(OPERATOR, bus).request(ServersQuery(), ServersReply, 10.0)

        rows = self.launched.on_the_bus(request).servers
        return next((row for row in rows if row["name"] == self.server), None)

    def _consent(self) -> bool:
        async def request(bus: Bus) -> IdentityReply:
            action = IdentityRequest(action="connect", name=self.server, by="conformance")
            return await RequestReply(OPERATOR, bus).request(action, IdentityReply, 30.0)

        try:
            (row,) = self.launched.on_the_bus(request).rows
        except ToolbusError as error:
            self.observations.append(f"no consent: {error}")
            return False
        self._consented = True
        browser = Browser(self.launched.ready["endpoint"].partition("/mcp")[0])
        page = browser.get(row["link"])
        sent = browser.post("/oauth/connect", ticket=page.ticket, answer="allow")
        back = browser.get(_followed(sent.location))
        self.observations.append(f"consent: {back.status} {back.text[-300:]}")
        return back.status == 200

    async def _store_id_token(self) -> None:
        """Store the scenario's ID token, as if its person had signed in with it."""
        context, launched = self.order["context"], self.launched
        claims = parse_unverified(context["idp_id_token"])[1]
        kept = ProviderTokens(
            PROVIDER, context["idp_issuer"], context["idp_client_id"], PERSON, claims["sub"],
            context["idp_id_token"], float(claims["exp"]), "",
        )  # fmt: skip
        settings = Settings(state_dir=launched.state_dir, nats_url=launched.nats_url)
        async with connection_store(settings) as store:
            await store.put(f"{PROVIDER} {PERSON}", kept)


@contextmanager
def scenario_server(launched: Launched) -> Iterator[int]:
    """Serve the suite's scenario requests and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        todo: ClassVar = ScenarioPlayer(launched)

        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers["content-length"])))
            message, failure = "", ""
            try:
                message = self.todo.do(order)
            except Exception as error:  # noqa: BLE001 - any error is reported to the suite
                failure = f"{FAILED}{error!r}"
            raw = json.dumps({"said": message, "failure": failure}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def oauth_of(url: str, context: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return the OAuth declaration of a scenario, with its client if it has one."""
    client_id, name = context.get("client_id"), str(context.get("name", ""))
    if not client_id:
        return {}
    client = {"id": client_id}
    given = {"secret": "client_secret", "key": "private_key_pem", "assertion": "valid_jwt"}
    for member, what in given.items():
        if what in context:
            # Secrets from a file are cached for minutes, so another scenario uses another file.
            kept = directory / f"{what}-{sha256(context[what].encode()).hexdigest()[:8]}"
            kept.write_text(context[what])
            client[member] = f"${{file:{kept.resolve()}}}"
    fields: dict[str, Any] = {"clients": {_issuer_of(url): client}}
    if "client-credentials" in name:
        fields["grant"] = "client_credentials"
    if "wif" in name:
        fields["grant"] = "workload"
    if "enterprise" in name:
        fields |= {"grant": "enterprise", "tokens": "user", "provider": PROVIDER}
    return fields


def _followed(url: str) -> str:
    return str(_got(url).headers["location"])


def _issuer_of(url: str) -> str:
    """Return the issuer in a server's metadata."""
    parts = urlsplit(url)
    for path in (parts.path, ""):
        where = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{path}"
        answer = _got(where)
        if answer.status == 200:
            return str(json.loads(answer.read())["authorization_servers"][0])
    return f"{parts.scheme}://{parts.netloc}"


def _got(url: str) -> http.client.HTTPResponse:
    target = urlsplit(url)
    with closing(http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)) as to:
        where = f"{target.path}?{target.query}" if target.query else target.path
        to.request("GET", where)
        answer = to.getresponse()
        body = answer.read()
        answer.read = lambda *_: body  # type: ignore[method-assign]
        return answer
