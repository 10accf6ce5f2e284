"""Administrative roles of persons and machines, restricted tokens, and the account page."""

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.services.authorization_service import (
    BASE,
    FORM,
    PASSWORD,
    STAFF,
    Server,
    ServiceBrowser,
    authorization_request,
    hashed,
    serving,
)
from harness.services.oauth_connections import connection_store
from toolbus_common.errors import UnauthorizedError
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings
from toolbus_oauth.upstreams.connections.records import Connection

API = f"{BASE}/api"
OFFERED: dict[str, Any] = {
    "groups": {
        "reading": {"tools": ["docs__read"], "scope": "first"},
        "writing": {"tools": ["docs__write"], "scope": "later"},
    }
}
OPS: dict[str, Any] = {
    **OFFERED,
    "access": {
        "ops": {"claims": {"groups": "ops"}, "tools": ["docs__*"], "role": "operator"},
        "robots": {"issuer": "machines", "claims": {"client": "nightly"}, "role": "viewer"},
        **STAFF["access"],
    },
}


@pytest.fixture
async def server(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    async with serving(settings, operator, monkeypatch) as server:
        await server.declare(**OPS)
        await server.account(groups=["ops"])
        await server.account("bo")
        yield server


async def vouched(server: Server, **more: Any) -> str:
    """Return the id of a client created by an operator."""
    about = {
        "token_endpoint_auth_method": "none",
        "redirect_uris": [authorization_request("")["redirect_uri"]],
    }
    (row,) = await server.action("add_client", "Console", **{**about, **more})
    return str(row["id"])


async def refreshed(server: Server, client: str, token: str, **more: str) -> dict[str, Any]:
    form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": token, **more}
    return (await server.form("/oauth/token", **form))[1]


async def test_a_person_with_a_role_lets_a_confirmed_client_administer(server: Server) -> None:
    client = await vouched(server)
    page = await ServiceBrowser(server).consenting(client, resource=API, scope="admin")
    assert "administer Toolbus as operator" in page.text
    result = await server.signed_in(client, resource=API, scope="admin")
    assert result["scope"] == "admin"
    bearer = await server.show(result["access_token"])
    assert (bearer.access, bearer.user, bearer.resource, bearer.scope) == (
        "ops",
        "ann",
        API,
        "admin",
    )
    least = await server.signed_in(client, resource=API)
    assert (await server.show(least["access_token"])).scope == "admin:read"


async def test_a_client_that_registered_itself_cannot_request_administration(
    server: Server,
) -> None:
    client = (await server.register())["client_id"]
    for scope in ("admin", "admin:read", ""):
        page = await ServiceBrowser(server).get(
            "/oauth/authorize", **authorization_request(client, resource=API, scope=scope)
        )
        assert page.parameters["error"] == "unauthorized_client"
    device = "urn:ietf:params:oauth:grant-type:device_code"
    waits = (await server.register(grant_types=[device], redirect_uris=[]))["client_id"]
    _, result = await server.form("/oauth/device/code", client_id=waits, resource=API)
    assert result["error"] == "unauthorized_client"


async def test_a_person_without_a_role_cannot_grant_administration(server: Server) -> None:
    client, walker = await vouched(server), ServiceBrowser(server)
    page = await walker.get(
        "/oauth/authorize", **authorization_request(client, resource=API, scope="admin")
    )
    page = await walker.signed_in(page, "bo")
    assert page.status == 403
    assert 'value="allow"' not in page.text
    tools = await walker.get("/oauth/authorize", **authorization_request(client))
    assert 'value="allow"' in (await walker.signed_in(tools, "bo")).text
    again = await walker.get(
        "/oauth/authorize", **authorization_request(client, resource=API, scope="admin")
    )
    assert 'value="allow"' not in again.text, "the session of a person without a role"


async def test_a_removed_role_ends_its_grants(server: Server) -> None:
    client = await vouched(server)
    result = await server.signed_in(client, resource=API, scope="admin")
    await server.show(result["access_token"])
    roles = {**OPS["access"], "ops": {**OPS["access"]["ops"], "role": None}}
    await server.declare(**{**OPS, "access": roles})
    with pytest.raises(UnauthorizedError):
        await server.show(result["access_token"])
    again = await refreshed(server, client, result["refresh_token"])
    assert again["error"] == "invalid_grant"
    nowhere = {"access": STAFF["access"]}
    await server.declare(**nowhere)
    page = await ServiceBrowser(server).get(
        "/oauth/authorize", **authorization_request(client, resource=API)
    )
    assert page.parameters["error"] == "invalid_target", (
        "without any role there is no such resource"
    )


async def test_a_machine_has_the_role_of_its_rule(server: Server) -> None:
    async def token(name: str) -> tuple[int, dict[str, Any]]:
        (row,) = await server.action("add_client", name)
        pair = b64encode(f"{row['id']}:{row['secret']}".encode()).decode()
        form = {"grant_type": "client_credentials", "resource": API, "scope": "admin"}
        return await server.form("/oauth/token", **form, basic=pair)

    status, result = await token("nightly")
    assert status == 200
    bearer = await server.show(result["access_token"])
    assert (bearer.access, bearer.user, bearer.scope) == ("robots", "machines/nightly", "admin")
    status, result = await token("another")
    assert (status, result["error"]) == (403, "access_denied")


async def test_no_request_extends_the_scope_of_a_token(server: Server) -> None:
    client = (await server.register())["client_id"]
    first = await server.signed_in(client)
    assert first["scope"] == "tools:reading", "the scope of a first request"
    for more in ("tools", "tools:writing", "tools:reading tools:writing", "admin"):
        result = await refreshed(server, client, first["refresh_token"], scope=more)
        assert result["error"] == "invalid_scope"
    both = await server.signed_in(client, scope="tools:reading tools:writing")
    less = await refreshed(server, client, both["refresh_token"], scope="tools:writing")
    assert less["scope"] == "tools:writing"
    assert (await server.show(less["access_token"])).scope == "tools:writing"
    whole = await refreshed(server, client, less["refresh_token"])
    assert whole["scope"] == "tools:reading tools:writing", "the grant itself is unchanged"
    wrong = await ServiceBrowser(server).get(
        "/oauth/authorize", **authorization_request(client, scope="tools:everything")
    )
    assert wrong.parameters["error"] == "invalid_scope"


async def test_the_consent_page_names_the_requested_tools(server: Server) -> None:
    client = (await server.register())["client_id"]
    page = await ServiceBrowser(server).consenting(client, scope="tools:writing")
    assert "use the tools of writing that the rule ops grants" in page.text
    page = await ServiceBrowser(server).consenting(client, scope="tools")
    assert "use all tools that the rule ops grants" in page.text


# -- the account page ------------------------------------------------------------------------------


async def account_of(server: Server, name: str = "ann") -> tuple[ServiceBrowser, str]:
    """Return a browser and its account page."""
    walker = ServiceBrowser(server)
    page = await walker.get("/oauth/account")
    assert "the access you allowed" in page.text
    return walker, (await walker.signed_in(page, name)).text


async def test_persons_see_and_end_their_own_grants(server: Server) -> None:
    client = (await server.register(client_name="<b>Desk</b>"))["client_id"]
    result = await server.signed_in(client)
    bearer = await server.show(result["access_token"])
    _, others = await account_of(server, "bo")
    assert bearer.grant not in others
    walker, own = await account_of(server)
    assert bearer.grant in own
    assert "<b>Desk" not in own
    page = await walker.get("/oauth/account")  # signed in already
    ended = await walker.post("/oauth/account", ticket=page.ticket, grant=bearer.grant)
    assert (ended.status, bearer.grant in ended.text) == (200, False)
    with pytest.raises(UnauthorizedError):
        await server.show(result["access_token"])
    again = await refreshed(server, client, result["refresh_token"])
    assert again["error"] == "invalid_grant"


async def test_a_grant_is_ended_only_by_its_owner_on_the_account_page(server: Server) -> None:
    client = (await server.register())["client_id"]
    result = await server.signed_in(client)
    bearer = await server.show(result["access_token"])
    walker, _ = await account_of(server, "bo")
    page = await walker.get("/oauth/account")
    stranger = ServiceBrowser(server)
    await stranger.get("/oauth/account")
    consent = ServiceBrowser(server)
    other = await consent.consenting(client)
    sent = {**FORM, "sec-fetch-site": "cross-site"}
    own, _ = await account_of(server)
    hers = await own.get("/oauth/account")
    tries = [
        await walker.post("/oauth/account", ticket=page.ticket, grant=bearer.grant),
        await stranger.post("/oauth/account", ticket=hers.ticket, grant=bearer.grant),
        await own.post("/oauth/account", sent, ticket=hers.ticket, grant=bearer.grant),
        await consent.post("/oauth/account", ticket=other.ticket, grant=bearer.grant),
        await own.post("/oauth/account", ticket="x", grant=bearer.grant),
        await own.post("/oauth/account", ticket=hers.ticket, grant="another"),
        await own.post("/oauth/account", ticket=hers.ticket, server="docs"),
        await own.answered(hers),
    ]
    assert [each.status for each in tries] == [404, 403, 403, 403, 403, 404, 404, 403]
    assert (await server.show(result["access_token"])).user == "ann"
    await server.action("change_account", "ann", password=hashed(PASSWORD + "!"))
    late = await own.post("/oauth/account", ticket=hers.ticket, grant=bearer.grant)
    assert late.status == 403


async def test_persons_see_and_end_only_their_own_connections(
    server: Server, settings: Settings
) -> None:
    async with connection_store(settings) as store:
        for user in ("ann", "bo", ""):
            record = Connection(
                "docs", user, "https://docs.test/mcp", "https://far.test", "", "https://far.test/t",
                "", "gateway", "none", "a-token-of-docs", 2e9, "a-refresh-token", (), (), 1e9,
            )  # fmt: skip
            await store.put(f"docs {user}", record)
    walker, own = await account_of(server)
    assert own.count('name="server" value="docs"') == 1
    assert "a-token-of-docs" not in own
    page = await walker.get("/oauth/account")
    ended = await walker.post("/oauth/account", ticket=page.ticket, server="docs")
    assert "No service is connected" in ended.text
    assert sorted(row["user"] for row in await server.action("connections")) == ["", "bo"]
