"""Oauth service in this process on a real bus, with the requests of ingress and of an operator."""

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from harness.audit.events import bus_of
from harness.clients.form_browser import Page
from harness.waits import until, until_async
from toolbus_common.config import Configuration
from toolbus_common.config_store.operator_targets import NAMED, digests_of, encoded
from toolbus_common.contracts import (
    Bearer,
    IdentityReply,
    IdentityRequest,
    PageReply,
    PageRequest,
    TokenQuery,
)
from toolbus_common.errors import UnavailableError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG, CONFIGURATION
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_oauth.main import build

BASE = "http://gateway.test"
RESOURCE = f"{BASE}/mcp"
REDIRECT = "https://client.test/callback"
PASSWORD = "correct horse battery"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
FORM = {"content-type": "application/x-www-form-urlencoded"}
STAFF = {"access": {"staff": {"claims": {"groups": "staff"}, "tools": ["docs__*"]}}}


def hashed(password: str) -> str:
    """Hash a password in the same way as the CLI, with a fast work factor."""
    made = Argon2id(salt=b"0123456789abcdef", length=32, iterations=1, lanes=1, memory_cost=64)
    return made.derive_phc_encoded(password.encode())


@dataclass
class ServiceBrowser:
    """A browser whose requests go directly to the service."""

    server: "Server"
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **query: str) -> Page:
        """Follow a link: a path or a complete URL."""
        parts = urlsplit(path)
        result = urlencode(query) if query else parts.query
        return await self._exchange("GET", parts.path, result, b"", {})

    async def post(self, path: str, headers: Mapping[str, str] = FORM, /, **form: str) -> Page:
        """Send a form."""
        return await self._exchange("POST", path, "", urlencode(form).encode(), {**headers})

    async def signed_in(self, page: Page, name: str = "ann", code: str = "") -> Page:
        """Fill in and send the sign-in form."""
        fields = {"name": name, "password": PASSWORD, "code": code}
        return await self.post("/oauth/sign-in", FORM, ticket=page.ticket, **fields)

    async def answered(self, page: Page, answer: str = "allow") -> Page:
        """Press a button of the consent page."""
        return await self.post("/oauth/consent", FORM, ticket=page.ticket, answer=answer)

    async def consenting(self, client_id: str, **more: str) -> Page:
        """Sign in if needed, and return the consent page."""
        page = await self.get("/oauth/authorize", **authorization_request(client_id, **more))
        return await self.signed_in(page) if 'name="password"' in page.text else page

    async def code(self, client_id: str, **more: str) -> str:
        """Return an authorization code after sign-in and consent."""
        return (await self.answered(await self.consenting(client_id, **more))).parameters["code"]

    async def _exchange(
        self, method: str, path: str, query: str, body: bytes, headers: dict[str, str]
    ) -> Page:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {**headers, **({"cookie": cookie} if cookie else {})}
        result = await self.server.page(method, path, query, body, sent)
        for name, value in result.headers:
            if name == "set-cookie":
                own, _, rest = value.partition("=")
                self.cookies[own] = rest.partition(";")[0]
        fields = [(each[0], each[1]) for each in result.headers]
        return Page(result.status, fields, result.body.decode())


@dataclass
class Server:
    """The running service, with the connections of ingress and of an operator."""

    ingress: RequestReply
    operator: RequestReply
    service: Service
    config: Bus

    async def answers(self) -> bool:
        """Return whether the service is reachable on the bus."""
        try:
            return (await self.page("GET", "/oauth/jwks")).status == 200
        except UnavailableError:
            return False

    async def page(
        self, method: str, path: str, query: str = "", body: bytes = b"", headers: Any = None
    ) -> PageReply:
        """Send an HTTP request in the form that ingress forwards."""
        request = PageRequest(
            method=method, path=path, query=query, headers=headers or {}, body=body
        )
        return await self.ingress.request(request, PageReply, 60.0)

    async def form(self, path: str, **form: str) -> tuple[int, dict[str, Any]]:
        """Send the form of a client, and return the status and the JSON of the response."""
        headers = {**FORM}
        if "basic" in form:
            headers["authorization"] = f"Basic {form.pop('basic')}"
        if "dpop" in form:
            headers["dpop"] = form.pop("dpop")
        result = await self.page("POST", path, "", urlencode(form).encode(), headers)
        return result.status, json.loads(result.body)

    async def register(self, **more: Any) -> dict[str, Any]:
        """Register a client dynamically."""
        fields = {
            "client_name": "A client",
            "redirect_uris": [REDIRECT],
            "token_endpoint_auth_method": "none",
            **more,
        }
        answer = await self.page("POST", "/oauth/register", body=json.dumps(fields).encode())
        found: dict[str, Any] = json.loads(answer.body)
        return found

    async def token(self, client_id: str, code: str, **more: str) -> tuple[int, dict[str, Any]]:
        """Exchange a code for tokens."""
        form = {
            "grant_type": "authorization_code",
            "client_id": client_id,
            "code": code,
            "code_verifier": VERIFIER,
            "redirect_uri": REDIRECT,
            **more,
        }
        return await self.form("/oauth/token", **form)

    async def signed_in(self, client_id: str, **more: str) -> dict[str, Any]:
        """Return tokens for ann after sign-in, consent and exchange."""
        code = await ServiceBrowser(self).code(client_id, **more)
        status, result = await self.token(client_id, code)
        assert status == 200, result
        return result

    async def show(self, token: str) -> Bearer:
        """Return the owner of a token. Raises `UnauthorizedError`."""
        return await self.ingress.request(TokenQuery(token=token), Bearer, 60.0)

    async def action(self, action: str, name: str = "", **about: Any) -> list[dict[str, Any]]:
        """Send an operator's action, and return its rows."""
        request = IdentityRequest(action=action, name=name, by="op", about=json.dumps(about))
        return list((await self.operator.request(request, IdentityReply, 60.0)).rows)

    async def account(self, name: str = "ann", **about: Any) -> dict[str, Any]:
        """Create an account."""
        fields = {"password": hashed(PASSWORD), "groups": ["staff"], **about}
        (row,) = await self.action("add_account", name, **fields)
        return row

    async def declare(self, **sections: Any) -> None:
        """Apply a configuration, and approve its addresses as an operator."""
        configuration = Configuration.model_validate(sections)
        bucket = await self.config.bucket(CONFIG)
        await bucket.put(NAMED, encoded(set(digests_of(configuration))))
        revision = await bucket.put(CONFIGURATION, configuration.model_dump_json().encode())
        await until(lambda: self.service.status().revisions.get(CONFIG, 0) >= revision, "declared")


def authorization_request(client_id: str, **more: str) -> dict[str, str]:
    """Return the parameters of an authorization request. Empty parameters are omitted."""
    fields = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": REDIRECT,
        "state": "a-state",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "resource": RESOURCE,
        **more,
    }
    return {name: value for name, value in fields.items() if value}


@asynccontextmanager
async def serving(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, **environment: str
) -> AsyncIterator[Server]:
    """Run the service with additional settings."""
    for name, value in {
        "STATE_DIR": str(settings.state_dir),
        "NATS_URL": settings.nats_url,
        "PUBLIC_URL": BASE,
        **environment,
    }.items():
        monkeypatch.setenv(f"TOOLBUS_{name}", value)
    async with bus_of("ingress", settings) as bus, build(ProcessContext()).running() as service:
        server = Server(
            RequestReply("ingress", bus), RequestReply(OPERATOR, operator), service, operator
        )
        await until_async(server.answers, "the service answers")
        yield server
