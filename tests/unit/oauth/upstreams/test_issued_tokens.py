"""Tokens that Toolbus issues itself: for one server, one caller, five minutes."""

from hashlib import sha256
from typing import Any

import jwt
import pytest
from joserfc.jwk import ECKey
from pydantic import ValidationError

from toolbus_common.config import Server
from toolbus_common.contracts import UpstreamTokenQuery
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.upstreams.issued_tokens import SECONDS, IssuedTokens

HUB, SITE = "https://hub.test", "https://site.test/mcp"
ANN = '{"sub":"ann","key":"bot","customer":"acme","act":{"sub":"desk"}}'


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    return SigningKeys(tmp_path_factory.mktemp("keys") / "signing.json")


def read(keys: SigningKeys, token: str) -> dict[str, Any]:
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "at+jwt"
    key = next(each for each in keys.public()["keys"] if each["kid"] == header["kid"])
    found: dict[str, Any] = jwt.decode(
        token, jwt.PyJWK(key), algorithms=["ES256"], audience=SITE, issuer=HUB
    )
    return found


def server(**oauth: Any) -> Server:
    return Server(url=SITE, oauth={"grant": "issued", **oauth})


def test_a_token_names_the_caller_and_lasts_five_minutes(keys: SigningKeys) -> None:
    query = UpstreamTokenQuery(server="site", user="ann", claims=ANN)
    reply = IssuedTokens(HUB, keys).answer(query, server())
    claims = read(keys, reply.token)
    assert (claims["sub"], claims["key"], claims["customer"]) == ("ann", "bot", "acme")
    assert claims["act"] == {"sub": "desk"}
    assert claims["exp"] - claims["iat"] == SECONDS
    assert (claims["client_id"], reply.key) == (HUB, "")


def test_claims_that_are_not_of_a_caller_are_not_signed(keys: SigningKeys) -> None:
    hostile = '{"sub":"ann","aud":"https://other.test","scope":"admin","grant":"g","iss":"x"}'
    query = UpstreamTokenQuery(server="site", claims=hostile)
    claims = read(keys, IssuedTokens(HUB, keys).answer(query, server()).token)
    assert not {"scope", "grant"} & set(claims)


def test_the_gateway_lists_in_its_own_name(keys: SigningKeys) -> None:
    query = UpstreamTokenQuery(server="site", listing=True)
    assert read(keys, IssuedTokens(HUB, keys).answer(query, server()).token)["sub"] == HUB


def test_a_bound_token_comes_with_its_key(keys: SigningKeys) -> None:
    query = UpstreamTokenQuery(server="site", claims=ANN)
    reply = IssuedTokens(HUB, keys).answer(query, server(dpop=True))
    public = ECKey.import_key(ProofKey.of(reply.key).public)
    assert read(keys, reply.token)["cnf"] == {"jkt": public.thumbprint()}


def test_a_caller_keeps_its_token_until_the_server_rejects_it(keys: SigningKeys) -> None:
    issued, query = IssuedTokens(HUB, keys), UpstreamTokenQuery(server="site", claims=ANN)
    first = issued.answer(query, server()).token
    assert issued.answer(query, server()).token == first
    other = query.model_copy(update={"claims": ANN.replace("ann", "bob")})
    assert issued.answer(other, server()).token != first
    rejected = query.model_copy(update={"rejected": sha256(first.encode()).hexdigest()})
    second = issued.answer(rejected, server()).token
    assert second != first
    assert issued.answer(query, server()).token == second


def test_without_a_public_url_there_is_a_reason_and_no_token(keys: SigningKeys) -> None:
    reply = IssuedTokens("", keys).answer(UpstreamTokenQuery(server="site"), server())
    assert (reply.token, "TOOLBUS_PUBLIC_URL" in reply.reason) == ("", True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": SITE, "oauth": {"grant": "issued", "tokens": "shared"}}, "for each caller"),
        (
            {"url": SITE, "oauth": {"grant": "issued", "issuer": HUB}},
            "no other issuer",
        ),
        ({"url": SITE, "oauth": {"grant": "issued", "scopes": ["a"]}}, "no 'scopes'"),
        ({"url": SITE, "oauth": {"grant": "issued", "listing": "ann"}}, "no 'listing'"),
        ({"url": SITE, "oauth": {"grant": "issued", "env": "TOKEN"}}, "only to processes"),
        ({"command": ["x"], "oauth": {"grant": "issued", "env": "TOKEN"}}, "verifies tokens"),
        ({"grpc": "grpcs://x.test:1", "oauth": {"grant": "issued", "dpop": True}}, "DPoP"),
    ],
)
def test_settings_without_effect_are_rejected(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Server(**fields)
