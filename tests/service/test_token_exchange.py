"""Token exchange: which client may act for a person, where, how long, and how it is recorded."""

from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import time
from typing import Any

import pytest

from harness.services.authorization_service import BASE, RESOURCE, STAFF, Server, serving
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.errors import InvalidError, UnauthorizedError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import TOKENS
from toolbus_common.settings import Settings
from toolbus_oauth.clients.registry import EXCHANGE
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.keys.unverified_jwt import parse_unverified
from toolbus_oauth.server.token_exchange import MAX_ACTORS, TOKEN

DOCS = f"{RESOURCE}/docs"
SECTIONS: dict[str, Any] = {
    "servers": {name: {"url": f"http://127.0.0.1:9/{name}"} for name in ("docs", "mail")},
    "access": {**STAFF["access"], "robots": {"issuer": "machines", "tools": ["docs__*"]}},
}


@pytest.fixture
async def server(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    async with serving(settings, operator, monkeypatch) as server:
        await server.declare(**SECTIONS)
        await server.account()
        yield server


@dataclass
class Machine:
    """A client created by an operator."""

    server: Server
    name: str
    row: dict[str, Any]

    @classmethod
    async def create(cls, server: Server, name: str, *exchange: str) -> "Machine":
        (row,) = await server.action("add_client", name, exchange=list(exchange))
        return cls(server, name, row)

    async def request_token(self, **form: str) -> tuple[int, dict[str, Any]]:
        pair = b64encode(f"{self.row['id']}:{self.row['secret']}".encode()).decode()
        return await self.server.form("/oauth/token", basic=pair, **form)

    async def exchanges(self, subject: str, **more: str) -> tuple[int, dict[str, Any]]:
        fields = {"subject_token": subject, "subject_token_type": TOKEN, "resource": DOCS, **more}
        form = {name: value for name, value in fields.items() if value}
        return await self.request_token(grant_type=EXCHANGE, **form)

    async def refused(self, subject: str, **more: str) -> str:
        status, result = await self.exchanges(subject, **more)
        assert status >= 400, result
        return str(result["error"])

    async def exchanged(self, subject: str, **more: str) -> str:
        status, result = await self.exchanges(subject, **more)
        assert status == 200, result
        assert result["issued_token_type"] == TOKEN
        assert "refresh_token" not in result
        return str(result["access_token"])

    async def own(self) -> str:
        status, result = await self.request_token(grant_type="client_credentials")
        assert status == 200, result
        return str(result["access_token"])


async def anns(server: Server, **more: str) -> str:
    client = await server.register()
    return str((await server.signed_in(client["client_id"], **more))["access_token"])


async def test_a_machine_acts_for_a_person_where_it_is_allowed(server: Server) -> None:
    helper, subject = await Machine.create(server, "helper", DOCS), await anns(server)
    token = await helper.exchanged(subject, actor_token=await helper.own(), actor_token_type=TOKEN)
    claims = parse_unverified(token)[1]
    assert (claims["sub"], claims["aud"]) == ("ann", DOCS)
    assert claims["act"] == {"sub": "machines/helper"}
    assert claims["exp"] <= parse_unverified(subject)[1]["exp"]
    bearer = await server.show(token)
    assert (bearer.user, bearer.resource, bearer.access) == ("ann", DOCS, "staff")
    assert bearer.actors == ("machines/helper",)
    assert bearer.name == (await server.show(subject)).name, "the limits are ann's"
    assert (await server.show(subject)).actors == ()
    rows = await server.action("grants")
    assert [
        row["actors"] for row in rows if row["client"] == "helper" and row["user"] == "ann"
    ] == [["machines/helper"]]


async def test_only_a_client_allowed_by_an_operator_exchanges_tokens(server: Server) -> None:
    subject, unprivileged = await anns(server), await Machine.create(server, "nobody")
    assert await unprivileged.refused(subject) == "unauthorized_client"
    grants = ["authorization_code", EXCHANGE]
    own = await server.register(
        grant_types=grants, exchange=[DOCS], token_endpoint_auth_method="client_secret_post"
    )
    form = {"client_id": own["client_id"], "client_secret": own["client_secret"]}
    fields = {"subject_token": subject, "subject_token_type": TOKEN, "grant_type": EXCHANGE}
    _, refused = await server.form("/oauth/token", **form, **fields)
    assert refused["error"] == "unauthorized_client"
    with pytest.raises(InvalidError, match="secret or key"):
        await server.action(
            "add_client", "open", exchange=[DOCS], token_endpoint_auth_method="none"
        )


async def test_an_exchanged_token_never_exceeds_its_subject_token(server: Server) -> None:
    helper = await Machine.create(server, "helper", DOCS)
    whole, mail = await anns(server), await anns(server, resource=f"{RESOURCE}/mail")
    assert await helper.refused(whole, resource=f"{RESOURCE}/mail") == "invalid_target"
    assert await helper.refused(whole, resource=RESOURCE) == "invalid_target", (
        "not an allowed target"
    )
    assert await helper.refused(whole, resource="", audience="") == "invalid_target"
    assert await helper.refused(whole, audience=RESOURCE) == "invalid_target", "two meanings"
    assert await helper.refused(mail) == "invalid_target", "ann's token is not good there"
    assert await helper.refused(whole, scope="tools more") == "invalid_scope"
    everywhere = await Machine.create(server, "everywhere", RESOURCE, DOCS)
    docs = await helper.exchanged(whole)
    assert await everywhere.refused(docs, resource=RESOURCE) == "invalid_target"


async def test_a_token_refreshed_with_less_scope_is_exchanged_for_that_scope(
    server: Server,
) -> None:
    groups = {"reading": {"tools": ["docs__read"], "scope": "later"}}
    await server.declare(**SECTIONS, groups=groups)
    helper, client = await Machine.create(server, "helper", DOCS), await server.register()
    whole = await server.signed_in(client["client_id"], scope="tools")
    form = {"grant_type": "refresh_token", "client_id": client["client_id"]}
    less = {"refresh_token": whole["refresh_token"], "scope": "tools:reading"}
    status, result = await server.form("/oauth/token", **form, **less)
    assert status == 200, result
    token = await helper.exchanged(result["access_token"])
    assert (await server.show(token)).scope == "tools:reading"
    assert await helper.refused(result["access_token"], scope="tools") == "invalid_scope"


async def test_a_revoked_exchanged_token_stays_invalid_after_another_exchange(
    server: Server,
) -> None:
    helper, subject = await Machine.create(server, "helper", DOCS), await anns(server)
    leaked = await helper.exchanged(subject)
    again = await helper.exchanged(subject)
    assert (await server.show(leaked)).name == (await server.show(again)).name
    pair = b64encode(f"{helper.row['id']}:{helper.row['secret']}".encode()).decode()
    assert (await server.form("/oauth/revoke", basic=pair, token=leaked))[0] == 200
    assert (await server.show(await helper.exchanged(subject))).user == "ann"
    for token in (leaked, again):
        with pytest.raises(UnauthorizedError, match="ended"):
            await server.show(token)


async def test_where_bound_tokens_are_required_an_unbound_one_is_not_exchanged(
    server: Server,
) -> None:
    helper, subject = await Machine.create(server, "helper", DOCS), await anns(server)
    bound = {name: {**rule, "dpop": True} for name, rule in STAFF["access"].items()}
    await server.declare(**{**SECTIONS, "access": bound})
    assert await helper.refused(subject) == "invalid_grant"


async def test_only_valid_own_tokens_are_exchanged_and_the_actor_is_the_client(
    server: Server,
) -> None:
    helper = await Machine.create(server, "helper", DOCS)
    other = await Machine.create(server, "other", DOCS)
    subject = await anns(server)
    head, body, sign = subject.split(".")
    assert await helper.refused(f"{head}.{body}.{sign[::-1]}") == "invalid_grant"
    assert await helper.refused("") == "invalid_grant"
    kinds = {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}
    assert await helper.refused(subject, **kinds) == "invalid_request"
    kinds = {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}
    assert await helper.refused(subject, **kinds) == "invalid_request"
    assert await helper.refused(subject, actor_token_type=TOKEN) == "invalid_request"
    for actor in (await other.own(), subject, await helper.exchanged(subject)):
        fields = {"actor_token": actor, "actor_token_type": TOKEN}
        assert await helper.refused(subject, **fields) == "invalid_grant"


async def test_a_chain_of_actors_is_complete_and_limited(server: Server) -> None:
    token = await anns(server)
    names: list[str] = []
    for number in range(MAX_ACTORS):
        machine = await Machine.create(server, f"m{number}", DOCS)
        token = await machine.exchanged(token)
        assert await machine.exchanged(token), "a repetition does not extend the chain"
        names.insert(0, f"machines/m{number}")
    assert (await server.show(token)).actors == tuple(names)
    items, act = [], parse_unverified(token)[1].get("act")
    while act:
        items.append(act["sub"])
        act = act.get("act")
    assert items == names
    last = await Machine.create(server, "last", DOCS)
    assert await last.refused(token) == "invalid_grant"


async def test_an_exchanged_token_expires_with_its_subject_and_a_bound_one_stays_bound(
    server: Server, settings: Settings
) -> None:
    helper, subject = await Machine.create(server, "helper", DOCS), await anns(server)
    keys = SigningKeys(settings.state_dir / "oauth-signing.json")
    old = {**parse_unverified(subject)[1], "exp": int(time()) + 90}
    token = await helper.exchanged(keys.sign(old, "at+jwt"))
    assert parse_unverified(token)[1]["exp"] <= old["exp"]
    assert await helper.refused(keys.sign({**old, "exp": 1}, "at+jwt")) == "invalid_grant"
    assert await helper.refused(keys.sign(old, "JWT")) == "invalid_grant"
    bound = {**old, "cnf": {"jkt": "a key's"}}
    assert await helper.refused(keys.sign(bound, "at+jwt")) == "invalid_grant"


async def test_an_exchanged_token_ends_with_its_subject_token(
    server: Server, operator: Bus
) -> None:
    helper = await Machine.create(server, "helper", DOCS)
    second = await Machine.create(server, "second", DOCS)
    subject = await anns(server)
    introspected = await helper.exchanged(subject)
    unused = await second.exchanged(introspected)
    bearer = await server.show(introspected)
    source = (await server.show(subject)).grant
    assert bearer.grant.startswith(source)
    known = await operator.bucket(TOKENS)
    assert await known.get(hash_of(key_digest_of(introspected))) is not None
    await server.action("end_grant", source)
    gone = await known.get(hash_of(key_digest_of(introspected)))
    assert gone is None or gone.value is None, "the token is invalid at once everywhere"
    for token in (introspected, unused):
        with pytest.raises(UnauthorizedError):
            await server.show(token)
        assert await second.refused(token) == "invalid_grant"
    assert not [row for row in await server.action("grants") if row["user"] == "ann"]
    pair = b64encode(f"{helper.row['id']}:{helper.row['secret']}".encode()).decode()
    _, result = await server.form("/oauth/introspect", basic=pair, token=introspected)
    assert result == {"active": False}


async def test_metadata_declares_token_exchange(server: Server) -> None:
    result = await server.page("GET", "/.well-known/oauth-authorization-server")
    assert EXCHANGE in result.body.decode()
    assert BASE in result.body.decode()
