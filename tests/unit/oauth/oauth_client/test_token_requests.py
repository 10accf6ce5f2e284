"""Token requests over Authlib: how the client authenticates, and which responses are accepted."""

import gzip
import json
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from harness.network.json_server import Request, Response, answering
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_common.egress import Egress
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.oauth_client import token_client
from toolbus_oauth.oauth_client.identity import ClientIdentity, RemoteEndpoint, TokenRequestError
from toolbus_oauth.oauth_client.token_client import USUAL_SECONDS, TokenClient

ISSUER = "https://far.test"
TOKEN = {"access_token": "t", "token_type": "Bearer"}
FORM = {"grant_type": "client_credentials", "scope": "a b", "resource": "https://docs.test/mcp?x=1"}
PUBLIC = ClientIdentity("gate way", "none")


@pytest.fixture
def tokens(tmp_path: Path) -> TokenClient:
    return TokenClient(HttpClient(CheckedResolver(Egress())), SigningKeys(tmp_path / "keys.json"))


async def requested(
    tokens: TokenClient,
    client: ClientIdentity,
    response: Callable[[], Response] = lambda: Response(body=TOKEN),
    key: str = "",
    form: dict[str, str] = FORM,
) -> tuple[dict[str, Any], list[Request]]:
    """Return the response to a token request, and the requests that the server received."""
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        return response()

    with answering(answer) as port:
        endpoint = RemoteEndpoint(f"http://127.0.0.1:{port}/token", ISSUER, named=True)
        return await tokens.send(endpoint, client, form, key), seen


def fields(request: Request) -> dict[str, str]:
    """Return the form of a request, in which every name occurs once."""
    pairs = parse_qsl(request.body.decode(), strict_parsing=True)
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


async def test_a_public_client_sends_its_id(tokens: TokenClient) -> None:
    _, (request,) = await requested(tokens, PUBLIC)
    assert fields(request) == {**FORM, "client_id": "gate way"}
    assert "authorization" not in request.headers


async def test_a_secret_is_form_encoded_in_the_authorization_header(tokens: TokenClient) -> None:
    client = ClientIdentity("a:b", "client_secret_basic", "c%d: +€")
    _, (request,) = await requested(tokens, client)
    pair = b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    assert [unquote_plus(each) for each in pair.split(":")] == ["a:b", "c%d: +€"]
    assert fields(request) == FORM


async def test_a_client_of_an_upstream_server_also_sends_its_id_beside_a_header(
    tokens: TokenClient,
) -> None:
    client = ClientIdentity("a:b", "client_secret_basic", "s", id_in_form=True)
    _, (request,) = await requested(tokens, client)
    assert request.headers["authorization"].startswith("Basic ")
    assert fields(request) == {**FORM, "client_id": "a:b"}


@pytest.mark.parametrize("in_form", [True, False])
@pytest.mark.parametrize("method", ["none", "client_secret_basic", "client_secret_post"])
async def test_a_form_may_have_values_that_are_not_ascii(
    tokens: TokenClient, method: str, *, in_form: bool
) -> None:
    form = {**FORM, "resource": "https://docs.test/größe"}
    client = ClientIdentity("ä", method, "€", id_in_form=in_form)
    _, (request,) = await requested(tokens, client, form=form)
    credential = {
        "none": {"client_id": "ä"},
        "client_secret_basic": {"client_id": "ä"} if in_form else {},
        "client_secret_post": {"client_id": "ä", "client_secret": "€"},
    }[method]
    assert fields(request) == {**form, **credential}


@pytest.mark.parametrize("header", ["caf\xe9", "größe €".encode().decode("latin-1")])
@pytest.mark.parametrize("key", ["", ProofKey.new().kept], ids=["bearer", "dpop"])
async def test_a_response_may_have_headers_that_are_not_ascii(
    tokens: TokenClient, header: str, key: str
) -> None:
    headers = {"x-note": header, "dpop-nonce": "n1"}
    found, seen = await requested(tokens, PUBLIC, lambda: Response(200, TOKEN, headers), key)
    assert (found["access_token"], len(seen)) == ("t", 1)
    assert list(tokens.nonces.values()) == (["n1"] if key else [])
    denied = Response(401, {"error": "invalid_client"}, headers)
    with pytest.raises(TokenRequestError) as raised:
        await requested(tokens, PUBLIC, lambda: denied, key)
    assert raised.value.code == "invalid_client"


async def test_a_failure_after_the_response_is_not_reported_as_a_wrong_url(
    tokens: TokenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(token_client, "_checked", fail)
    with pytest.raises(ValueError, match="a defect"):
        await requested(tokens, PUBLIC)


async def test_a_secret_is_sent_in_the_form(tokens: TokenClient) -> None:
    client = ClientIdentity("a", "client_secret_post", "c%d: +€")
    _, (request,) = await requested(tokens, client)
    assert fields(request) == {**FORM, "client_id": "a", "client_secret": "c%d: +€"}


@pytest.mark.parametrize("kind", ["own", "ES256", "RS256"])
async def test_every_assertion_is_new_and_for_the_issuer(tokens: TokenClient, kind: str) -> None:
    pem, keys = "", KeySet.import_key_set(tokens.keys.public())  # type: ignore[arg-type]
    if kind != "own":
        key = ECKey.generate_key("P-256") if kind == "ES256" else RSAKey.generate_key(2048)
        pem, keys = key.as_pem(private=True).decode(), KeySet([key])
    ids = set()
    for _ in range(2):
        _, (request,) = await requested(tokens, ClientIdentity("a", "private_key_jwt", "", pem))
        form = fields(request)
        assert form["client_id"] == "a"
        assert form["client_assertion_type"].endswith(":jwt-bearer")
        token = jwt.decode(form["client_assertion"], keys, algorithms=["ES256", "RS256"])
        assert (token.claims["iss"], token.claims["sub"], token.claims["aud"]) == ("a", "a", ISSUER)
        assert token.claims["exp"] <= time.time() + 120
        ids.add(token.claims["jti"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    "pem",
    [
        "no key",
        ECKey.generate_key("P-384").as_pem(private=True).decode(),
        ECKey.generate_key("P-256").as_pem(private=False).decode(),
    ],
    ids=["no key", "another curve", "a public key"],
)
async def test_a_key_that_cannot_sign_is_an_error_that_says_so(
    tokens: TokenClient, pem: str
) -> None:
    with pytest.raises(TokenRequestError, match="PEM private key for ES256 or RS256"):
        await requested(tokens, ClientIdentity("a", "private_key_jwt", "", pem))


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (Response(400, TOKEN), ""),
        (Response(302, TOKEN, {"location": "http://["}), ""),
        (Response(503, {"error": "invalid_grant"}), "invalid_grant"),
        (Response(400, {"error": {"a": 1}}), ""),
        (Response(200, {**TOKEN, "error": "invalid_scope"}), "invalid_scope"),
    ],
)
async def test_only_a_successful_response_is_a_token(
    tokens: TokenClient, response: Response, code: str
) -> None:
    with pytest.raises(TokenRequestError, match="HTTP") as raised:
        await requested(tokens, PUBLIC, lambda: response)
    assert raised.value.code == code


async def test_a_response_that_two_parsers_could_read_differently_has_no_token(
    tokens: TokenClient,
) -> None:
    twice = b'{"access_token":"a","access_token":"b","token_type":"bearer"}'
    found, _ = await requested(tokens, PUBLIC, lambda: Response(200, twice))
    assert "access_token" not in found


@pytest.mark.parametrize("lifetime", ["soon", "9" * 5000, -1, True, [], None])
async def test_a_lifetime_that_is_no_number_is_the_default(
    tokens: TokenClient, lifetime: Any
) -> None:
    body = {**TOKEN, "expires_in": lifetime, "expires_at": "never"}
    found, _ = await requested(tokens, PUBLIC, lambda: Response(200, body))
    assert found["expires_in"] == USUAL_SECONDS


async def test_a_response_is_never_decompressed_and_no_cookie_is_stored(
    tokens: TokenClient,
) -> None:
    packed = gzip.compress(json.dumps({**TOKEN, "pad": "a" * 10_000_000}).encode())
    headers = {"content-encoding": "gzip", "set-cookie": "a=b"}
    found, _ = await requested(tokens, PUBLIC, lambda: Response(200, packed, headers))
    assert "access_token" not in found
    _, (request,) = await requested(tokens, PUBLIC)
    assert "cookie" not in request.headers
    assert request.headers["accept-encoding"] == "identity"


async def test_a_proof_is_repeated_once_with_the_nonce_of_the_server(tokens: TokenClient) -> None:
    needs = {"error": "use_dpop_nonce"}
    responses = [Response(400, needs, {"dpop-nonce": "n1"}), Response(200, TOKEN)]
    _, seen = await requested(tokens, PUBLIC, lambda: responses.pop(0), ProofKey.new().kept)
    assert len({each.headers["dpop"] for each in seen}) == 2
    with pytest.raises(TokenRequestError, match="use_dpop_nonce"):
        await requested(tokens, PUBLIC, lambda: Response(400, needs), ProofKey.new().kept)


async def test_a_token_is_revoked_with_the_credential_of_the_client(tokens: TokenClient) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        return Response(200 if len(seen) == 1 else 503)

    client = ClientIdentity("a", "client_secret_post", "s")
    with answering(answer) as port:
        endpoint = RemoteEndpoint(f"http://127.0.0.1:{port}/revoke", ISSUER, named=True)
        await tokens.revoke(endpoint, client, "t", "refresh_token")
        with pytest.raises(TokenRequestError, match="HTTP 503"):
            await tokens.revoke(endpoint, client, "t", "refresh_token")
    assert fields(seen[0]) == {
        "token": "t", "token_type_hint": "refresh_token", "client_id": "a", "client_secret": "s",
    }  # fmt: skip


@pytest.mark.parametrize("url", ["http://[", "nowhere", "http://127.0.0.1\n/x", ""])
async def test_an_endpoint_that_is_no_url_is_an_error_that_says_so(
    tokens: TokenClient, url: str
) -> None:
    with pytest.raises(TokenRequestError, match=r"URL|host is not a name"):
        await tokens.send(RemoteEndpoint(url, ISSUER, named=False), PUBLIC, FORM)
    with pytest.raises(TokenRequestError, match=r"URL|host is not a name"):
        await tokens.revoke(RemoteEndpoint(url, ISSUER, named=False), PUBLIC, "t", "access_token")


async def test_an_endpoint_at_a_private_address_is_not_called(tokens: TokenClient) -> None:
    with answering(lambda _: Response(body=TOKEN)) as port:
        endpoint = RemoteEndpoint(f"http://127.0.0.1:{port}/token", ISSUER, named=False)
        with pytest.raises(TokenRequestError, match="loopback address"):
            await tokens.send(endpoint, PUBLIC, FORM)
