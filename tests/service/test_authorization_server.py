"""The authorization server on a real bus: grants, tokens, and the attacks it rejects."""

import asyncio
import json
import re
import time
from base64 import b32decode
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from harness.services.authorization_service import (
    BASE,
    CHALLENGE,
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
from harness.waits import until_async
from toolbus_common.errors import UnauthorizedError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import PEOPLE, TOKENS
from toolbus_common.settings import Settings
from toolbus_oauth.server import authorize_flow as browsing


async def test_a_person_allows_a_client_to_act_in_their_name(server: Server) -> None:
    client = await server.register()
    result = await server.signed_in(client["client_id"])
    bearer = await server.show(result["access_token"])
    assert (bearer.access, bearer.user, bearer.resource) == ("staff", "ann", RESOURCE)
    assert result["token_type"] == "Bearer"
    assert result["scope"] == "tools"


async def test_every_answer_names_its_issuer_also_an_error(server: Server) -> None:
    client = (await server.register())["client_id"]
    walker = ServiceBrowser(server)
    yes = await walker.answered(await walker.consenting(client))
    no = await walker.answered(await walker.consenting(client), "deny")
    wrong = await walker.get(
        "/oauth/authorize", **authorization_request(client, response_type="token")
    )
    assert [page.parameters["iss"] for page in (yes, no, wrong)] == [BASE] * 3
    assert no.parameters["error"] == "access_denied"
    assert wrong.parameters["error"] == "unsupported_response_type"
    assert {page.parameters["state"] for page in (yes, no, wrong)} == {"a-state"}


async def test_a_redirect_uri_that_differs_in_one_byte_is_rejected(server: Server) -> None:
    client = (await server.register())["client_id"]
    for at in range(len(REDIRECT)):
        off = f"{REDIRECT[:at]}~{REDIRECT[at + 1 :]}"
        page = await ServiceBrowser(server).get(
            "/oauth/authorize", **authorization_request(client, redirect_uri=off)
        )
        assert (page.status, page.location) == (400, ""), off
    for off in (REDIRECT + "/", REDIRECT[:-1], REDIRECT + "?", "https://client.test:443/callback"):
        page = await ServiceBrowser(server).get(
            "/oauth/authorize", **authorization_request(client, redirect_uri=off)
        )
        assert (page.status, page.location) == (400, ""), off


@pytest.mark.parametrize(
    "pkce",
    [
        {"code_challenge": "", "code_challenge_method": ""},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": ""},
        {"code_challenge": "too-short"},
    ],
)
async def test_a_request_without_pkce_is_rejected(server: Server, pkce: dict[str, str]) -> None:
    client = (await server.register())["client_id"]
    page = await ServiceBrowser(server).get(
        "/oauth/authorize", **authorization_request(client, **pkce)
    )
    assert page.parameters["error"] == "invalid_request"
    assert "code" not in page.parameters


async def test_a_code_is_valid_for_its_client_its_verifier_and_its_redirect_uri(
    server: Server,
) -> None:
    client, other = [(await server.register())["client_id"] for _ in range(2)]
    code = await ServiceBrowser(server).code(client)
    assert (await server.token(other, code))[1]["error"] == "invalid_grant"
    for wrong in ({"code_verifier": CHALLENGE}, {"code_verifier": ""}, {"redirect_uri": "x:y"}):
        status, result = await server.token(client, code, **wrong)
        assert (status, result["error"]) == (400, "invalid_grant")
    status, result = await server.token(client, code, resource=f"{BASE}/mcp/else")
    assert result["error"] == "invalid_target"
    assert (await server.token(client, code))[0] == 200


async def test_a_reused_code_revokes_its_tokens(server: Server) -> None:
    client = (await server.register())["client_id"]
    code = await ServiceBrowser(server).code(client)
    _, result = await server.token(client, code)
    await server.show(result["access_token"])
    assert (await server.token(client, code))[1]["error"] == "invalid_grant"
    with pytest.raises(UnauthorizedError):
        await server.show(result["access_token"])
    again = await server.form(
        "/oauth/token",
        grant_type="refresh_token", client_id=client, refresh_token=result["refresh_token"],
    )  # fmt: skip
    assert again[1]["error"] == "invalid_grant"


async def test_a_code_redeemed_concurrently_leaves_no_grant(server: Server) -> None:
    client = (await server.register())["client_id"]
    code = await ServiceBrowser(server).code(client)
    answers = await asyncio.gather(*(server.token(client, code) for _ in range(8)))
    assert sum(status == 200 for status, _ in answers) <= 1
    assert await server.action("grants") == []


async def test_a_reused_refresh_token_ends_the_whole_family(server: Server) -> None:
    client = (await server.register())["client_id"]
    first = await server.signed_in(client)

    async def refresh(token: str, **more: str) -> tuple[int, dict[str, Any]]:
        form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": token, **more}
        return await server.form("/oauth/token", **form)

    assert (await refresh(first["refresh_token"], scope="more"))[1]["error"] == "invalid_scope"
    status, second = await refresh(first["refresh_token"])
    assert status == 200
    await server.show(second["access_token"])
    assert (await refresh(first["refresh_token"]))[1]["error"] == "invalid_grant"
    assert (await refresh(second["refresh_token"]))[1]["error"] == "invalid_grant"
    with pytest.raises(UnauthorizedError):
        await server.show(second["access_token"])
    assert await server.action("grants") == []


async def test_an_introspected_token_is_forgotten_everywhere_when_its_grant_ends(
    server: Server, operator: Bus
) -> None:
    result = await server.signed_in((await server.register())["client_id"])
    await server.show(result["access_token"])
    (grant,) = await server.action("grants")
    assert (grant["user"], grant["client"]) == ("ann", "A client")
    await server.action("end_grant", grant["id"])
    bucket = await operator.bucket(TOKENS)

    async def empty() -> bool:
        return not [each for each in await bucket.present() if each.value is not None]

    await until_async(empty, "the token is forgotten")
    with pytest.raises(UnauthorizedError):
        await server.show(result["access_token"])


async def test_a_page_shown_to_one_browser_cannot_be_answered_from_another(server: Server) -> None:
    client = (await server.register())["client_id"]
    page = await ServiceBrowser(server).consenting(client)
    attacker = ServiceBrowser(server)
    await attacker.consenting(client)
    stolen = await attacker.answered(page)
    assert (stolen.status, stolen.location) == (403, "")
    assert (await ServiceBrowser(server).answered(page)).status == 403


async def test_a_page_is_answered_once_and_from_this_site_only(server: Server) -> None:
    client = (await server.register())["client_id"]
    walker = ServiceBrowser(server)
    page = await walker.consenting(client)
    form = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "cross-site"}
    crossed = await walker.post("/oauth/consent", form, ticket=page.ticket, answer="allow")
    assert crossed.status == 403
    assert (await walker.answered(page)).status == 303
    assert (await walker.answered(page)).status == 400


async def test_the_consent_page_is_shown_every_time_with_name_and_address(server: Server) -> None:
    result = await server.register(
        client_name="<b>Bank</b>", redirect_uris=["http://127.0.0.1:7/back"]
    )
    walker = ServiceBrowser(server)
    for _ in range(2):
        page = await walker.consenting(result["client_id"], redirect_uri="http://127.0.0.1:99/back")
        assert "&lt;b&gt;Bank" in page.text
        assert "127.0.0.1:99" in page.text
        assert "program on this computer" in page.text
        headers = dict(page.headers)
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (await walker.answered(page)).parameters["code"]
    cookie = next(iter(walker.cookies))
    assert all(name.startswith("__Host-") for name in walker.cookies), cookie


async def test_sign_in_attempts_are_limited_per_name_and_unknown_names_look_like_wrong_passwords(
    server: Server,
) -> None:
    client = (await server.register())["client_id"]
    walker = ServiceBrowser(server)
    page = await walker.get("/oauth/authorize", **authorization_request(client))
    messages = []
    for name in ["ann"] * 9 + ["nobody"]:
        fields = {"name": name, "password": "wrong", "code": ""}
        page = await walker.post("/oauth/sign-in", FORM, ticket=page.ticket, **fields)
        messages.append((page.status, "Too many sign-in attempts" in page.text))
    assert messages == [(403, False)] * 8 + [(403, True), (403, False)]


async def test_a_second_factor_is_required_and_valid_once(server: Server) -> None:
    row = await server.account("bob", totp=True)
    factor = TOTP(b32decode(row["totp_secret"]), 6, SHA1(), 30)
    client = (await server.register())["client_id"]

    async def attempt(code: str) -> int:
        walker = ServiceBrowser(server)
        page = await walker.get("/oauth/authorize", **authorization_request(client))
        return (await walker.signed_in(page, "bob", code)).status

    code = factor.generate(time.time()).decode()
    assert await attempt("") == 403
    assert await attempt("000000" if code != "000000" else "111111") == 403
    assert await attempt(code) == 200
    assert await attempt(code) == 403


async def test_a_changed_account_loses_its_grants(server: Server) -> None:
    client = (await server.register())["client_id"]
    walker = ServiceBrowser(server)
    result = await server.signed_in(client)
    await walker.consenting(client)
    await server.action("change_account", "ann", groups=["guests"])
    with pytest.raises(UnauthorizedError):
        await server.show(result["access_token"])
    page = await walker.get("/oauth/authorize", **authorization_request(client))
    assert 'name="password"' in page.text
    refused = await walker.signed_in(page)
    assert refused.status == 403
    assert "no access rule" in refused.text


async def test_stored_records_reveal_nothing_to_a_reader_of_the_bucket(
    server: Server, operator: Bus
) -> None:
    client = (await server.register(client_name="canary-client"))["client_id"]
    result = await server.signed_in(client)
    await server.show(result["access_token"])
    stored = b""
    for name in ("tb_oauth", "tb_oauth_clients", "tb_oauth_brief"):
        for each in await (await operator.bucket(name)).present():
            stored += each.key.encode() + (each.value or b"")
    for canary in ("canary-client", client, result["refresh_token"], VERIFIER):
        assert canary.encode() not in stored
    # A word of its own: in so much ciphertext three letters in a row occur by chance.
    assert not re.search(rb"\bann\b", stored)


async def test_a_registration_lists_each_grant_and_each_address_once(server: Server) -> None:
    grants = ["authorization_code", "refresh_token", "refresh_token"]
    addresses = ["https://a.example/back", "https://a.example/back"]
    client = await server.register(grant_types=grants, redirect_uris=addresses)
    assert client["grant_types"] == ["authorization_code", "refresh_token"]
    assert client["redirect_uris"] == ["https://a.example/back"]


@pytest.mark.parametrize("setting", ["true", "false"])
async def test_registration_can_be_switched_off(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    async with serving(settings, operator, monkeypatch, OAUTH_REGISTRATION=setting) as server:
        result = await server.page("GET", "/.well-known/oauth-authorization-server")
        posted = await server.page(
            "POST", "/oauth/register", body=b'{"redirect_uris":["https://a/b"]}'
        )
        offered = "registration_endpoint" in json.loads(result.body)
        assert (offered, posted.status) == ((True, 201) if setting == "true" else (False, 404))


async def test_pages_and_cookies_of_a_removed_account_do_not_fit_a_new_one_of_its_name(
    server: Server,
) -> None:
    client = (await server.register())["client_id"]
    walker = ServiceBrowser(server)
    page = await walker.consenting(client)
    await server.action("remove_account", "ann")
    await server.account("ann")
    refused = await walker.answered(page)
    assert refused.status == 403
    again = await walker.get("/oauth/authorize", **authorization_request(client))
    assert 'name="password"' in again.text, "the old cookie is invalid"


async def test_denied_sign_ins_are_recorded_up_to_a_limit_and_create_no_person_keys(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MAX_DENIALS", 3)  # per minute: each takes a tenth of a second
    async with serving(settings, operator, monkeypatch) as server:
        await server.declare(**STAFF)
        client = (await server.register())["client_id"]
        walker = ServiceBrowser(server)
        page = await walker.get("/oauth/authorize", **authorization_request(client))
        for number in range(9):
            refused = await walker.signed_in(page, name=f"stranger{number}")
            assert refused.status == 403
    # The service has ended, so all its events are published.
    stream = await operator.client.jetstream().stream_info("EVENTS", subjects_filter="tb.event.>")
    assert (stream.state.subjects or {}).get("tb.event.signin.denied.default") == 3
    assert await (await operator.bucket(PEOPLE)).present() == []
