"""Access tokens of Google Cloud: where they are fetched, by how many requests, and what is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from harness.apis import cloud_providers as clouds
from harness.apis.model_provider import ModelProvider, ModelRequest
from harness.services.call_runner import AT_LOOPBACK
from toolbus_common.config import Configuration, Provider
from toolbus_common.config_store.operator_targets import (
    NAMED,
    ConfirmedTargets,
    digests_of,
    encoded,
)
from toolbus_common.egress.tls import Tls
from toolbus_common.errors import UpstreamDeadError
from toolbus_common.nats.kv_bucket import Change
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.providers.api_keys import ApiKey
from toolbus_executor.providers.endpoints.authorization import authorization_of
from toolbus_executor.providers.endpoints.google_tokens import GoogleTokens
from toolbus_executor.transport.dialer import Dialer

KEY = ApiKey("key", b"")


@asynccontextmanager
async def issuer(token: str = clouds.TOKEN, status: int = 200) -> AsyncIterator[ModelProvider]:
    """Run a token endpoint that answers with this token."""

    async def answer(request: ModelRequest) -> None:
        await request.reply({"access_token": token, "expires_in": 3600}, status)

    async with ModelProvider().running() as served:
        served.answer = answer
        yield served


def tokens(
    url: str, dialer: Dialer = AT_LOOPBACK, secrets: KnownSecrets | None = None
) -> GoogleTokens:
    return GoogleTokens({"key": clouds.service_account(url)}, dialer, secrets or KnownSecrets())


async def test_a_confirmed_provider_does_not_permit_another_host_as_its_token_endpoint() -> None:
    async with issuer() as served:
        found = tokens(f"{served.url}/token", Dialer(named=lambda: True))
        with pytest.raises(UpstreamDeadError, match="Google issued no access token"):
            await found.lines(KEY, "/", b"")
        assert served.requests == []


def test_the_token_endpoint_does_not_receive_the_certificate_of_the_provider() -> None:
    tls = Tls("extra.pem", "ca.pem", "own.pem", "own.key", shown="PEM")
    assert Dialer(tls=tls).to_other_hosts().tls == Tls("extra.pem", "ca.pem")


async def test_requests_at_the_same_time_share_one_token_even_if_one_of_them_ends() -> None:
    async with issuer() as served:
        found = tokens(f"{served.url}/token")
        ended = asyncio.ensure_future(found.lines(KEY, "/", b""))
        others = [asyncio.ensure_future(found.lines(KEY, "/", b"")) for _ in range(3)]
        await asyncio.sleep(0)
        ended.cancel()
        lines = await asyncio.gather(*others)
        lines.append(await found.lines(KEY, "/", b""))
        assert set(lines) == {f"authorization: Bearer {clouds.TOKEN}\r\n".encode()}
        assert len(served.requests) == 1


@pytest.mark.parametrize("token", ["a\r\nhost: evil", "a b", "ä", "", "x" * 8193])
async def test_a_token_that_no_header_can_contain_is_refused(token: str) -> None:
    async with issuer(token) as served:
        found = tokens(f"{served.url}/token")
        for _ in range(2):  # it is refused as long as google-auth considers it valid, too
            with pytest.raises(UpstreamDeadError, match="Google issued no access token"):
                await found.lines(KEY, "/", b"")


async def test_a_token_is_redacted_in_what_the_provider_answers() -> None:
    secrets = KnownSecrets()
    async with issuer() as served:
        await tokens(f"{served.url}/token", secrets=secrets).lines(KEY, "/", b"")
    (line,) = secrets.struck([f"the token {clouds.TOKEN} is invalid"])
    assert clouds.TOKEN not in line
    assert "is invalid" in line


async def test_a_token_endpoint_that_fails_receives_one_request() -> None:
    async with issuer(status=503) as served:
        with pytest.raises(UpstreamDeadError, match="Google issued no access token"):
            await tokens(f"{served.url}/token").lines(KEY, "/", b"")
        assert len(served.requests) == 1


def test_the_credentials_of_the_machine_need_a_confirmation_of_their_own() -> None:
    url = "https://aiplatform.googleapis.com/v1"
    place = {"kind": "vertex", "url": url, "project": "p-1", "location": "global"}
    ambient = Provider(**place, ambient=True)
    keyed = Provider(
        **place, credentials={"key": clouds.service_account("https://oauth2.googleapis.com/token")}
    )
    for declared, is_permitted in ((keyed, False), (ambient, True)):
        confirmed = ConfirmedTargets()
        digests = set(digests_of(Configuration(providers={"p": declared})))
        confirmed.apply_change(Change(NAMED, encoded(digests), 1))
        dialer = Dialer(named=lambda: True)
        assert confirmed.has(ambient.endpoint)
        if is_permitted:
            assert authorization_of(ambient, {}, dialer, KnownSecrets(), confirmed)
        else:
            with pytest.raises(UpstreamDeadError, match="only an operator may configure"):
                authorization_of(ambient, {}, dialer, KnownSecrets(), confirmed)
