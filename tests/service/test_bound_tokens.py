"""Tokens bound to a client's key (RFC 9449) at the authorization server."""

import json
from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

import pytest

from harness.oauth.dpop_proofs import Holder, decoded
from harness.services.authorization_service import (
    BASE,
    FORM,
    REDIRECT,
    RESOURCE,
    STAFF,
    VERIFIER,
    Server,
    ServiceBrowser,
    authorization_request,
    serving,
)
from toolbus_common.errors import UnauthorizedError
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings

ENDPOINT = f"{BASE}/oauth/token"
ANN, EVE = Holder(), Holder("EdDSA")
BOUND = {"access": {"staff": {**STAFF["access"]["staff"], "dpop": True}}}


def proof(holder: Holder = ANN, **more: Any) -> str:
    return holder.proof("POST", ENDPOINT, **more)


async def public(server: Server, **more: Any) -> str:
    return str((await server.register(**more))["client_id"])


async def refreshed(server: Server, client: str, tokens: dict[str, Any], **more: str) -> Any:
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **more}
    return await server.form("/oauth/token", client_id=client, **form)


def claims_of(token: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(decoded(token.split(".")[1]))
    return body


async def test_a_token_is_bound_to_the_proven_key_and_others_are_not(
    server: Server,
) -> None:
    client = await public(server)
    status, result = await server.token(
        client, await ServiceBrowser(server).code(client), dpop=proof()
    )
    assert (status, result["token_type"]) == (200, "DPoP"), result
    assert claims_of(result["access_token"])["cnf"] == {"jkt": ANN.jkt}
    assert (await server.show(result["access_token"])).jkt == ANN.jkt
    plain = await server.signed_in(client)
    assert plain["token_type"] == "Bearer"
    assert (await server.show(plain["access_token"])).jkt == ""


async def test_an_invalid_proof_gets_no_token_and_does_not_use_the_code(server: Server) -> None:
    client = await public(server)
    code = await ServiceBrowser(server).code(client)
    wrong = [
        "",
        "no proof",
        f"{proof()}, {proof()}",
        ANN.proof("POST", f"{BASE}/mcp"),
        ANN.proof("GET", ENDPOINT),
        proof(iat=1),
        proof(header={"jwk": EVE.jwk}),
        proof(header={"alg": "none"}),
    ]
    for each in wrong:
        status, result = await server.token(client, code, dpop=each)
        assert (status, result["error"]) == (400, "invalid_dpop_proof"), each
    once = proof()
    assert (await server.token(client, code, dpop=once))[0] == 200
    again = await ServiceBrowser(server).code(client)
    status, result = await server.token(client, again, dpop=once)
    assert (status, result["error"]) == (400, "invalid_dpop_proof")
    assert "used before" in result["error_description"]


async def test_a_public_clients_refresh_token_is_valid_only_with_its_key(
    server: Server,
) -> None:
    client = await public(server)
    _, result = await server.token(client, await ServiceBrowser(server).code(client), dpop=proof())
    assert (await refreshed(server, client, result))[1]["error"] == "invalid_dpop_proof"
    stolen = await refreshed(server, client, result, dpop=proof(EVE))
    assert stolen[1]["error"] == "invalid_grant"
    status, second = await refreshed(server, client, result, dpop=proof())
    assert (status, second["token_type"]) == (200, "DPoP"), "a stolen token ends nothing"
    late = await refreshed(server, client, result, dpop=proof(EVE))
    assert late[1]["error"] == "invalid_grant"
    assert (await refreshed(server, client, second, dpop=proof()))[0] == 200


async def test_a_grant_is_bound_from_its_first_proof_and_never_unbound(server: Server) -> None:
    client = await public(server)
    result = await server.signed_in(client)
    status, bound = await refreshed(server, client, result, dpop=proof())
    assert (status, bound["token_type"]) == (200, "DPoP")
    assert (await refreshed(server, client, bound))[1]["error"] == "invalid_dpop_proof"


async def test_a_stolen_token_bound_to_a_thiefs_key_ends_with_its_clients_next_refresh(
    server: Server,
) -> None:
    for own in ({}, {"dpop": proof()}):
        client = await public(server)
        result = await server.signed_in(client)
        status, stolen = await refreshed(server, client, result, dpop=proof(EVE))
        assert status == 200, "the two cannot be distinguished yet"
        assert (await refreshed(server, client, result, **own))[1]["error"] == "invalid_grant"
        assert (await refreshed(server, client, stolen, dpop=proof(EVE)))[0] == 400
        with pytest.raises(UnauthorizedError, match="ended"):
            await server.show(stolen["access_token"])


async def test_a_token_issued_before_its_grants_key_is_invalid(server: Server) -> None:
    client = await public(server)
    result = await server.signed_in(client)
    assert (await refreshed(server, client, result, dpop=proof()))[0] == 200
    with pytest.raises(UnauthorizedError, match="ended"):
        await server.show(result["access_token"])


async def test_a_confidential_client_may_change_its_key_but_not_omit_it(server: Server) -> None:
    client = await server.register(token_endpoint_auth_method="client_secret_basic")
    basic = b64encode(f"{client['client_id']}:{client['client_secret']}".encode()).decode()
    code = await ServiceBrowser(server).code(client["client_id"])
    _, result = await server.token(client["client_id"], code, dpop=proof(), basic=basic)
    form = {"grant_type": "refresh_token", "refresh_token": result["refresh_token"], "basic": basic}
    assert (await server.form("/oauth/token", **form))[1]["error"] == "invalid_dpop_proof"
    status, other = await server.form("/oauth/token", dpop=proof(EVE), **form)
    assert status == 200, other
    assert claims_of(other["access_token"])["cnf"] == {"jkt": EVE.jkt}
    _, known = await server.form("/oauth/introspect", token=other["access_token"], basic=basic)
    assert (known["token_type"], known["cnf"]) == ("DPoP", {"jkt": EVE.jkt})


async def test_a_code_requested_with_a_key_is_redeemed_with_that_key_only(
    server: Server,
) -> None:
    client = await public(server)
    code = await ServiceBrowser(server).code(client, dpop_jkt=ANN.jkt)
    assert (await server.token(client, code))[1]["error"] == "invalid_grant"
    assert (await server.token(client, code, dpop=proof(EVE)))[1]["error"] == "invalid_grant"
    assert (await server.token(client, code, dpop=proof()))[0] == 200
    page = await ServiceBrowser(server).get(
        "/oauth/authorize", **authorization_request(client, dpop_jkt="short")
    )
    assert page.parameters["error"] == "invalid_request"


async def test_a_client_that_requires_bound_tokens_gets_no_others(server: Server) -> None:
    result = await server.register(dpop_bound_access_tokens=True)
    assert result["dpop_bound_access_tokens"] is True
    code = await ServiceBrowser(server).code(result["client_id"])
    refused = await server.token(result["client_id"], code)
    assert refused[1]["error"] == "invalid_dpop_proof"
    assert (await server.token(result["client_id"], code, dpop=proof()))[0] == 200
    odd = await server.register(dpop_bound_access_tokens="yes")
    assert odd["error"] == "invalid_client_metadata"
    row = (await server.action("add_client", "Job", dpop_bound_access_tokens=True))[0]
    assert row["dpop"] is True
    basic = b64encode(f"{row['id']}:{row['secret']}".encode()).decode()
    alone = await server.form("/oauth/token", grant_type="client_credentials", basic=basic)
    assert alone[1]["error"] == "invalid_dpop_proof"


async def test_a_rule_can_require_bound_tokens_also_at_a_refresh(server: Server) -> None:
    client = await public(server)
    before = await server.signed_in(client)
    await server.declare(**BOUND)
    assert (await refreshed(server, client, before))[1]["error"] == "invalid_dpop_proof"
    refused = await server.token(client, await ServiceBrowser(server).code(client))
    assert refused[1]["error"] == "invalid_dpop_proof"
    assert (await refreshed(server, client, before, dpop=proof()))[0] == 200
    machine = {"jobs": {"issuer": "machines", "dpop": True, "tools": ["*"]}}
    await server.declare(access=machine)
    (row,) = await server.action("add_client", "Job")
    basic = b64encode(f"{row['id']}:{row['secret']}".encode()).decode()
    form = {"grant_type": "client_credentials", "basic": basic}
    assert (await server.form("/oauth/token", **form))[1]["error"] == "invalid_dpop_proof"
    assert (await server.form("/oauth/token", dpop=proof(), **form))[1]["token_type"] == "DPoP"


async def test_supported_proof_algorithms_are_published(server: Server) -> None:
    page = await server.page("GET", "/.well-known/oauth-authorization-server")
    body = json.loads(page.body)["dpop_signing_alg_values_supported"]
    assert body == ["ES256", "EdDSA", "RS256"]


async def test_a_required_nonce_is_returned_first_and_an_invented_one_is_rejected(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings, operator, monkeypatch, DPOP_NONCE="true") as server:
        await server.declare(**STAFF)
        await server.account()
        client = await public(server)
        code = await ServiceBrowser(server).code(client)
        form = {
            "grant_type": "authorization_code", "client_id": client, "code": code,
            "code_verifier": VERIFIER, "redirect_uri": REDIRECT, "resource": RESOURCE,
        }  # fmt: skip

        async def request_token(nonce: str | None) -> tuple[int, str, str]:
            headers = {**FORM, "dpop": proof(nonce=nonce)}
            body = urlencode(form).encode()
            page = await server.page("POST", "/oauth/token", "", body, headers)
            fields = {each[0]: each[1] for each in page.headers}
            return page.status, json.loads(page.body).get("error", ""), fields.get("dpop-nonce", "")

        status, error, nonce = await request_token(None)
        assert (status, error, bool(nonce)) == (400, "use_dpop_nonce", True)
        assert (await request_token("made-up"))[1] == "use_dpop_nonce"
        assert (await request_token(nonce))[:2] == (200, "")
