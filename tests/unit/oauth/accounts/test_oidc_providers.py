"""OpenID providers: token requests of a sign-in, and the tokens that are rejected."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from harness.network.json_server import Request, Response, answering
from toolbus_common.config import Configuration, Issuer
from toolbus_common.egress import Egress
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.secrets import Secrets, stores_of
from toolbus_oauth.accounts.oidc_providers import CALLBACK, ProviderError, Providers
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.oauth_client.token_client import TokenClient
from toolbus_oauth.storage.records import PendingSignIn
from toolbus_oauth.web.errors import PageError

ISSUER = Issuer.model_validate({"url": "https://corp.test", "client_id": "gateway"})
FAR_AHEAD = 9_999_999_999


@dataclass
class Corp:
    """The provider "corp", whose token responses have the members `more`."""

    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    url: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)

    @property
    def issuer(self) -> Issuer:
        """Its configuration."""
        return Issuer.model_validate(
            {"url": self.url, "client_id": "gateway", "secret": "${env:CORP}"}
        )

    def signed(self, **claims: Any) -> str:
        """Return a token that it signed."""
        usual = {"iss": self.url, "exp": int(time.time()) + 600}
        return jwt.encode({"alg": "ES256"}, {**usual, **claims}, self.key)

    def answer(self, request: Request) -> Response:
        """Return the metadata, the keys or a token response."""
        if request.path.startswith("/.well-known/"):
            ends = {"token_endpoint": f"{self.url}/token", "jwks_uri": f"{self.url}/keys"}
            return Response(body={"issuer": self.url, **ends})
        if request.path == "/keys":
            return Response(body=KeySet([self.key]).as_dict(private=False))
        self.seen.append(request)
        token = {"access_token": "t", "token_type": "Bearer", "id_token": self.id_token()}
        return Response(body={**token, **self.more})

    def id_token(self) -> str:
        """Return an ID token for the sign-in with the nonce "n"."""
        usual = {"aud": "gateway", "nonce": "n", "sub": "s", "iat": int(time.time())}
        return self.signed(**{**usual, **self.claims})


@pytest.fixture
def corp() -> Iterator[Corp]:
    corp = Corp()
    with answering(corp.answer) as port:
        corp.url = f"http://127.0.0.1:{port}"
        yield corp


@pytest.fixture
def providers(corp: Corp, tmp_path: Path) -> Providers:
    fetcher, unused = HttpClient(CheckedResolver(Egress())), cast("Any", None)
    tokens = TokenClient(fetcher, SigningKeys(tmp_path / "keys.json"))
    config = Configuration(issuers={"corp": corp.issuer})
    return Providers(
        "https://toolbus.test", unused, fetcher, lambda: config, lambda _: True,
        Secrets(stores_of({"CORP": "s"})), tokens,
    )  # fmt: skip


async def signed_in(providers: Providers) -> str:
    """Return the name of the user who signed in."""
    pending = PendingSignIn(cast("Any", None), "corp", "verifier", "n", time.time() + 60)
    person = await providers.finish_sign_in(pending, f"{CALLBACK}corp", {"code": "c"})
    return person.user


@pytest.mark.parametrize("response", [{}, {"id_token": None}, {"id_token": ["a.b.c"]}])
async def test_a_response_without_an_id_token_is_an_error_that_says_so(
    response: dict[str, Any],
) -> None:
    unused = cast("Any", None)
    providers = Providers(
        "https://toolbus.test", unused, unused, Configuration, lambda _: False, unused, unused
    )
    with pytest.raises(ProviderError, match="has no ID token"):
        await providers.verified_id_token("corp", ISSUER, response)


async def test_a_sign_in_has_one_credential(corp: Corp, providers: Providers) -> None:
    assert await signed_in(providers) == "corp/s"
    (request,) = corp.seen
    assert request.headers["authorization"].startswith("Basic ")
    assert "client_id" not in dict(parse_qsl(request.body.decode()))


@pytest.mark.parametrize("token", [[300], {}, {"a": 1}, ["t"], 7, True, "a b", ""])
async def test_an_access_token_that_is_none_is_an_error_of_the_provider(
    corp: Corp, providers: Providers, token: Any
) -> None:
    corp.more, corp.claims = {"access_token": token}, {"at_hash": "x"}
    with pytest.raises(PageError, match="access token that is not valid"):
        await signed_in(providers)
    response = {"id_token": corp.id_token(), "access_token": token}
    with pytest.raises(ProviderError, match="access token that is not valid"):
        await providers.verified_id_token("corp", corp.issuer, response)


@pytest.mark.parametrize("at_hash", [[300], ["x"], {"a": 1}, 7, "x"])
async def test_an_at_hash_of_another_token_is_an_error_of_the_provider(
    corp: Corp, providers: Providers, at_hash: Any
) -> None:
    corp.claims = {"at_hash": at_hash}
    with pytest.raises(PageError, match="not issued for this sign-in"):
        await signed_in(providers)


async def test_a_response_may_have_no_access_token(corp: Corp, providers: Providers) -> None:
    corp.claims = {"at_hash": "x"}
    response = {"id_token": corp.id_token()}
    assert (await providers.verified_id_token("corp", corp.issuer, response))["sub"] == "s"


LENIENT = [{"iat": FAR_AHEAD}, {"iat": "now"}, {"jti": 7}, {"sub": 7}, {"aud": 7}, {"aud": [7]}]


@pytest.mark.parametrize("claims", LENIENT, ids=str)
async def test_a_claim_that_only_id_tokens_need_is_not_checked_in_another_token(
    corp: Corp, providers: Providers, claims: dict[str, Any]
) -> None:
    found = await providers.verified("corp", corp.issuer, corp.signed(**claims))
    assert found.items() >= claims.items()
    corp.claims = claims
    with pytest.raises(PageError):
        await signed_in(providers)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1}, "has expired"),
        ({"exp": "soon"}, "no valid exp"),
        ({"exp": None}, "exp"),
        ({"nbf": FAR_AHEAD}, "not valid yet"),
        ({"nbf": "now"}, "not valid yet"),
        ({"iss": "https://else.test"}, "iss differs"),
    ],
    ids=str,
)
async def test_the_issuer_and_the_times_of_every_token_are_checked(
    corp: Corp, providers: Providers, claims: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ProviderError, match=reason):
        await providers.verified("corp", corp.issuer, corp.signed(**claims))
    corp.claims = claims
    with pytest.raises(PageError, match=reason):
        await signed_in(providers)
