"""Clients without a browser, and introspection: issued and rejected tokens."""

import asyncio
import json
import time
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from harness.services.authorization_service import BASE, RESOURCE, STAFF, Server, ServiceBrowser
from toolbus_common.errors import ConflictError, UnauthorizedError
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_oauth.keys.unverified_jwt import parse_unverified
from toolbus_oauth.main import build


async def test_a_second_machine_of_the_same_name_is_rejected(server: Server) -> None:
    (row,) = await server.action("add_client", "nightly")
    for name in ("nightly", " nightly "):
        with pytest.raises(ConflictError, match=row["id"]):
            await server.action("add_client", name)
    redirect = {"redirect_uris": ["https://desk.test/callback"]}
    assert await server.action("add_client", "nightly", **redirect), (
        "it does not act in its own name"
    )
    await server.action("remove_client", row["id"])
    assert await server.action("add_client", "nightly")


async def test_concurrent_creations_of_one_machine_leave_at_most_one(server: Server) -> None:
    async with build(ProcessContext()).running():  # the second service
        for name in ("nightly", "daily", "weekly"):
            requests = (server.action("add_client", name) for _ in range(8))
            result = await asyncio.gather(*requests, return_exceptions=True)
            created = [rows[0]["id"] for rows in result if not isinstance(rows, BaseException)]
            rows = await server.action("clients")
            assert [row["id"] for row in rows if row["name"] == name] == created
            assert len(created) <= 1
            refused = (each for each in result if isinstance(each, BaseException))
            assert all(isinstance(each, ConflictError) for each in refused)


async def test_machines_authenticate_by_secret_or_key_and_each_assertion_once(
    server: Server,
) -> None:
    sections = {"access": {**STAFF["access"], "robots": {"issuer": "machines", "tools": ["a__*"]}}}
    await server.declare(**sections)
    (row,) = await server.action("add_client", "nightly")
    pair = b64encode(f"{row['id']}:{row['secret']}".encode()).decode()
    status, result = await server.form("/oauth/token", grant_type="client_credentials", basic=pair)
    assert status == 200
    assert "refresh_token" not in result
    bearer = await server.show(result["access_token"])
    assert (bearer.access, bearer.user) == ("robots", "machines/nightly")
    wrong = b64encode(f"{row['id']}:{row['secret']}x".encode()).decode()
    status, result = await server.form("/oauth/token", grant_type="client_credentials", basic=wrong)
    assert (status, result["error"]) == (401, "invalid_client")

    key = ECKey.generate_key("P-256")
    about = {"jwks": {"keys": [key.as_dict(private=False)]}}
    method = {"token_endpoint_auth_method": "private_key_jwt"}
    (row,) = await server.action("add_client", "keyed", **about, **method)

    async def asserted(signer: Any = key, alg: str = "ES256", **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": row["id"], "sub": row["id"], "aud": BASE, "jti": str(now), "exp": now + 60}
        assertion = jwt.encode({"alg": alg}, {**claims, **changes}, signer, algorithms=[alg])
        _, result = await server.form(
            "/oauth/token",
            grant_type="client_credentials",
            client_assertion=assertion,
            client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        )
        return str(result.get("error", "fine"))

    assert await asserted(jti="one") == "fine"
    assert await asserted(jti="one") == "invalid_client"
    assert await asserted(jti="two", aud="https://else.test") == "invalid_client"
    assert await asserted(jti="three", exp=1) == "invalid_client"
    assert await asserted(ECKey.generate_key("P-256"), jti="four") == "invalid_client"


async def test_a_device_gets_its_token_once_its_person_has_consented(server: Server) -> None:
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    client = (await server.register(grant_types=[grant], redirect_uris=[]))["client_id"]
    _, waiting = await server.form("/oauth/device/code", client_id=client)

    async def poll(code: str = waiting["device_code"]) -> tuple[int, dict[str, Any]]:
        form = {"grant_type": grant, "client_id": client, "device_code": code}
        return await server.form("/oauth/token", **form)

    assert (await poll())[1]["error"] == "authorization_pending"
    assert (await poll())[1]["error"] == "slow_down"
    assert (await poll(waiting["device_code"] + "x"))[1]["error"] == "invalid_grant"
    walker = ServiceBrowser(server)
    page = await walker.get("/oauth/device", user_code=waiting["user_code"].lower())
    page = await walker.signed_in(page)
    assert waiting["user_code"] in page.text
    assert (await walker.answered(page)).status == 200
    status, result = await poll()
    assert status == 200
    assert (await server.show(result["access_token"])).user == "ann"
    assert (await poll())[1]["error"] == "invalid_grant"


def _unsigned(claims: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'typ': 'at+jwt'})}.{part(claims)}.x"


async def test_only_tokens_signed_here_for_here_are_accepted(
    server: Server, settings: Settings
) -> None:
    result = await server.signed_in((await server.register())["client_id"])
    token = result["access_token"]
    bearer = await server.show(token)
    now = int(time.time())
    claims = {
        "iss": BASE, "sub": "ann", "aud": RESOURCE, "exp": now + 600, "iat": now,
        "grant": bearer.grant, "client_id": bearer.client, "scope": "tools",
        "born": parse_unverified(token)[1]["born"],
    }  # fmt: skip
    keys = json.loads((settings.state_dir / "oauth-signing.json").read_text())["keys"]
    own = ECKey.import_key(keys[-1])
    stranger = ECKey.generate_key("P-256")
    shared = OctKey.import_key(json.dumps(own.as_dict(private=False)).encode())

    def signed(key: Any, alg: str = "ES256", typ: str = "at+jwt", **changes: Any) -> str:
        header = {"alg": alg, "typ": typ, "kid": keys[-1]["kid"]}
        return jwt.encode(header, {**claims, **changes}, key, algorithms=[alg])

    # The valid token, of which the others are variations.
    assert (await server.show(signed(own))).user == "ann"
    for bad in (
        _unsigned(claims),
        signed(stranger),
        signed(shared, "HS256"),
        signed(own, typ="JWT"),
        signed(own, born="before"),
        signed(own, exp=now - 1),
        signed(own, aud=f"{BASE}/mcp/else"),
        signed(own, aud="https://else.test/mcp"),
        signed(own, iss="https://else.test"),
        signed(own, grant="another"),
        token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"),
    ):
        with pytest.raises(UnauthorizedError):
            await server.show(bad)


async def test_a_client_revokes_and_introspects_only_its_own_tokens(server: Server) -> None:
    method = {"token_endpoint_auth_method": "client_secret_post"}
    client, other = [await server.register(**method) for _ in range(2)]
    code = await ServiceBrowser(server).code(client["client_id"])
    own = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
    foreign = {"client_id": other["client_id"], "client_secret": other["client_secret"]}
    _, result = await server.token(client["client_id"], code, client_secret=own["client_secret"])
    token = result["access_token"]
    _, known = await server.form("/oauth/introspect", token=token, **own)
    assert (known["active"], known["sub"], known["aud"]) == (True, "ann", RESOURCE)
    assert (await server.form("/oauth/introspect", token=token, **foreign))[1] == {"active": False}
    await server.form("/oauth/revoke", token=token, **foreign)
    await server.show(token)
    await server.form("/oauth/revoke", token=result["refresh_token"], **own)
    assert (await server.form("/oauth/introspect", token=token, **own))[1] == {"active": False}
    with pytest.raises(UnauthorizedError):
        await server.show(token)


async def test_expired_credentials_are_rejected(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = (await server.register())["client_id"]
    result = await server.signed_in(client)
    later = time.time() + 40 * 86_400
    with monkeypatch.context() as changed:
        changed.setattr("toolbus_oauth.server.grants.time", lambda: later)
        form = {"client_id": client, "refresh_token": result["refresh_token"]}
        _, refused = await server.form("/oauth/token", grant_type="refresh_token", **form)
        assert refused["error"] == "invalid_grant"
    with monkeypatch.context() as changed:
        changed.setattr("toolbus_oauth.server.authorize_flow.CODE_SECONDS", -1.0)
        code = await ServiceBrowser(server).code(client)
        assert (await server.token(client, code))[1]["error"] == "invalid_grant"
    with monkeypatch.context() as changed:
        changed.setattr("toolbus_oauth.server.authorize_flow.TICKET_SECONDS", -1.0)
        assert (await ServiceBrowser(server).consenting(client)).status == 403
    assert (await ServiceBrowser(server).consenting(client)).status == 200
