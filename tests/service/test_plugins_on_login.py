"""Plugins that are asked about sign-ins by the oauth service, on a real bus."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness.engines.nats_server import NatsAt
from harness.guards.plugin_programs import Answer, PluginProgram, plugin_program, seed_of
from harness.services.authorization_service import (
    STAFF,
    Server,
    ServiceBrowser,
    authorization_request,
)

PASS = {"verdict": "pass"}
REFUSE = {"verdict": "refuse", "reason": "only on\nweekdays."}


@asynccontextmanager
async def declared(
    server: Server, nats_server: NatsAt, answer: Answer, **fields: Any
) -> AsyncIterator[PluginProgram]:
    """Run the plugin `probe`, declared with these fields."""
    given = {"hooks": ["on_login"], "sees": ["person"], "may": ["refuse"], "timeout": "60s"}
    plugin = {**given, **fields}
    async with plugin_program(nats_server.url, nats_server.seed(seed_of("probe")), answer) as found:
        await server.declare(**STAFF, plugins={"probe": plugin})
        yield found


async def sign_in(server: Server) -> Any:
    """Return the page after ann has sent the sign-in form."""
    client = (await server.register())["client_id"]
    browser = ServiceBrowser(server)
    page = await browser.get("/oauth/authorize", **authorization_request(client))
    return await browser.signed_in(page)


async def test_a_plugin_sees_the_person_and_the_provider(
    server: Server, nats_server: NatsAt
) -> None:
    async with declared(server, nats_server, lambda _: PASS) as probe:
        assert (await sign_in(server)).status == 200
    (request,) = probe.requests
    assert (request["point"], request["customer"]) == ("on_login", "default")
    assert request["content"] == {"person": "ann", "provider": "local", "access": "staff"}


async def test_without_sight_of_the_person_a_plugin_sees_no_person(
    server: Server, nats_server: NatsAt
) -> None:
    async with declared(server, nats_server, lambda _: PASS, sees=[]) as probe:
        assert (await sign_in(server)).status == 200
    assert (probe.requests[0]["has_content"], probe.requests[0]["content"]) == (False, None)
    assert "ann" not in json.dumps(probe.requests)


@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_a_silent_plugin_refuses_a_sign_in_only_if_it_fails_closed(
    server: Server, nats_server: NatsAt, fail: str
) -> None:
    given = {"timeout": "50ms", "fail": fail}
    async with declared(server, nats_server, lambda _: None, **given):
        page = await sign_in(server)
        assert page.status == (200 if fail == "open" else 403)
        assert ("it gave no answer within 0.05 s" in page.text) == (fail == "closed")


async def test_a_refused_person_gets_no_session_and_reads_the_reason(
    server: Server, nats_server: NatsAt
) -> None:
    async with declared(server, nats_server, lambda _: REFUSE):
        client = (await server.register())["client_id"]
        browser = ServiceBrowser(server)
        page = await browser.signed_in(
            await browser.get("/oauth/authorize", **authorization_request(client))
        )
        assert page.status == 403
        assert "refused this sign-in: only on weekdays" in page.text
        again = await browser.get("/oauth/authorize", **authorization_request(client))
        assert 'name="password"' in again.text


async def test_a_plugin_for_other_customers_is_not_asked(
    server: Server, nats_server: NatsAt
) -> None:
    async with declared(server, nats_server, lambda _: REFUSE, customers=["acme"]) as probe:
        assert (await sign_in(server)).status == 200
    assert probe.requests == []
