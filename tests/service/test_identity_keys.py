"""The signing key of caller identities: sent to executor, published, and of no other use."""

import json
from time import time

import jwt
import pytest

from harness.audit.events import bus_of
from harness.oauth.caller_identities import TYPE
from harness.services.authorization_service import BASE, RESOURCE, Server, serving
from toolbus_common.contracts import IdentityKeyQuery, IdentityKeyReply
from toolbus_common.crypto.p256 import P256Key, header_of
from toolbus_common.errors import InvalidError, UnauthorizedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings


async def request_key(settings: Settings) -> IdentityKeyReply:
    """Return the reply to executor."""
    async with bus_of("executor", settings) as bus:
        asking = RequestReply("executor", bus)
        return await asking.request(IdentityKeyQuery(), IdentityKeyReply, 60.0)


async def test_the_public_key_is_published_and_the_private_one_is_sent_to_executor(
    server: Server, settings: Settings
) -> None:
    key = await request_key(settings)
    assert key.issuer == BASE
    assert key.key not in repr(key)
    published = (await server.page("GET", "/oauth/identity-keys")).body.decode()
    assert key.key not in published
    found = jwt.PyJWKSet.from_json(published)[key.id]
    signed = P256Key.of(key.key).signed(header_of(typ=TYPE, kid=key.id), {"sub": "ann"})
    assert jwt.decode(signed, found, algorithms=["ES256"]) == {"sub": "ann"}
    file = settings.state_dir / "oauth-identity.json"
    assert file.stat().st_mode & 0o077 == 0


async def test_the_identity_key_cannot_sign_an_access_token(
    server: Server, settings: Settings
) -> None:
    key = await request_key(settings)
    others = json.loads((await server.page("GET", "/oauth/jwks")).body)["keys"]
    assert key.id not in {each["kid"] for each in others}
    client = await server.register()
    good = (await server.signed_in(client["client_id"]))["access_token"]
    header = jwt.get_unverified_header(good)
    claims = jwt.decode(good, options={"verify_signature": False}) | {"exp": int(time()) + 60}
    for name in (key.id, header["kid"]):
        forged = P256Key.of(key.key).signed(header_of(typ=header["typ"], kid=name), claims)
        with pytest.raises(UnauthorizedError):
            await server.show(forged)
    assert (await server.show(good)).resource == RESOURCE


async def test_without_a_public_url_no_key_is_sent(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings, operator, monkeypatch, PUBLIC_URL=""):
        with pytest.raises(InvalidError, match="TOOLBUS_PUBLIC_URL"):
            await request_key(settings)
