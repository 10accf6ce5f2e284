"""Federation: OpenID providers that sign persons in, and client ID metadata documents."""

import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness.clients.form_browser import Page
from harness.engines.nats_server import NatsAt
from harness.guards.plugin_programs import plugin_program, seed_of
from harness.network.json_server import Request, Response, answering
from harness.oauth.certificates import Authority
from harness.oauth.openid_process import Provider, issuer
from harness.oauth.openid_provider import CLIENT
from harness.services.authorization_service import (
    BASE,
    REDIRECT,
    RESOURCE,
    Server,
    ServiceBrowser,
    authorization_request,
    serving,
)
from toolbus_common.errors import UnauthorizedError
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings

RULES = {"staff": {"issuer": "corp", "claims": {"groups": "staff"}, "tools": ["docs__*"]}}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """Run one provider for all tests of this file."""
    with Provider(tmp_path_factory.mktemp("provider")).running() as provider:
        yield provider


@pytest.fixture
def malicious_provider(tmp_path: Path) -> Iterator[Provider]:
    """Run a malicious provider."""
    with Provider(tmp_path).running() as provider:
        yield provider


@pytest.fixture
async def server(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> AsyncIterator[Server]:
    provider.as_ever()
    # Nothing is listed: only addresses in the operator's own file may be called.
    async with serving(settings, operator, monkeypatch, EGRESS_ALLOW="") as server:
        await server.declare(issuers={"corp": issuer(provider)}, access=RULES, users={"ann": {}})
        yield server


def _ann() -> dict[str, Any]:
    return {"sub": "s-1", "login": "ann", "groups": ["staff"]}


async def _away(walker: ServiceBrowser, provider: Provider) -> str:
    """Return the redirect of a browser that signed in at the provider."""
    return provider.arrive(await _sent(walker, "corp"))


async def _sent(walker: ServiceBrowser, name: str) -> str:
    """Return the address where the browser is sent to sign in."""
    client = (await walker.server.register())["client_id"]
    page = await walker.get("/oauth/authorize", **authorization_request(client))
    return (await walker.post("/oauth/sign-in", ticket=page.ticket, issuer=name)).link


async def test_a_person_signs_in_at_the_companys_provider(
    server: Server, provider: Provider
) -> None:
    walker = ServiceBrowser(server)
    page = await walker.get(await _away(walker, provider))
    assert "ann" in page.text
    code = (await walker.answered(page)).parameters["code"]
    client = (await server.action("clients"))[-1]["id"]
    _, result = await server.token(client, code)
    bearer = await server.show(result["access_token"])
    assert (bearer.access, bearer.user) == ("staff", "ann")
    assert "ann" not in bearer.name


async def test_a_callback_is_accepted_once_and_from_its_own_browser(
    server: Server, provider: Provider
) -> None:
    walker = ServiceBrowser(server)
    back = await _away(walker, provider)
    assert (await ServiceBrowser(server).get(back)).status == 403
    back = await _away(walker, provider)
    assert (await walker.get(back)).status == 200
    assert (await walker.get(back)).status == 400
    assert (await walker.get("/oauth/callback/corp?code=x&state=guessed")).status == 400
    assert (await walker.get("/oauth/callback?code=x&state=guessed")).status == 404


async def test_an_answer_of_another_issuer_is_rejected(server: Server, provider: Provider) -> None:
    async def answered() -> Page:
        walker = ServiceBrowser(server)
        return await walker.get(await _away(walker, provider))

    assert (await answered()).status == 200
    for iss in ("https://evil.test", provider.url + "/", None):
        provider.say(iss=iss)
        assert (await answered()).status == 502, iss


async def test_an_answer_without_an_issuer_is_not_sent_to_another_provider(
    server: Server, provider: Provider, malicious_provider: Provider
) -> None:
    for each in (provider, malicious_provider):
        each.say(iss=None, advertised=False)
    issuers = {"corp": issuer(provider), "evil": issuer(malicious_provider)}
    await server.declare(issuers=issuers, access=RULES)
    walker = ServiceBrowser(server)
    own = f"redirect_uri={quote(BASE, safe='')}%2Foauth%2Fcallback%2F"
    lure = (await _sent(walker, "evil")).replace(f"{own}evil", f"{own}corp")
    back = provider.arrive(lure.replace(malicious_provider.url, provider.url))
    assert back.startswith("/oauth/callback/corp?code=")
    page = await walker.get(back)
    assert page.status == 502
    assert "from another issuer" in page.text
    assert "/token" not in malicious_provider.seen()
    assert (await walker.get(provider.arrive(await _sent(walker, "corp")))).status == 200


async def test_an_id_token_of_another_sign_in_or_client_is_rejected(
    server: Server, provider: Provider
) -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"nonce": "of another"}, {"aud": "another"}, {"exp": 1}, {"iss": "https://x"},
        {"aud": [CLIENT, "another"]}, {"aud": [CLIENT, "another"], "azp": CLIENT},
        {"azp": "another"}, {"at_hash": "of-another-token"}, {"sub": 7}, {"iat": None},
        {"iat": int(time.time()) + 600}, {"exp": "soon"},
    )  # fmt: skip
    for wrong in wrongs:
        provider.say(claims={**_ann(), **wrong})
        walker = ServiceBrowser(server)
        assert (await walker.get(await _away(walker, provider))).status == 502, wrong


async def test_a_person_without_an_access_rule_is_rejected(
    server: Server, provider: Provider
) -> None:
    provider.say(claims={"sub": "s-2", "login": "eve", "groups": ["guests"]})
    walker = ServiceBrowser(server)
    page = await walker.get(await _away(walker, provider))
    assert page.status == 403
    assert "no access rule" in page.text


async def test_tokens_of_a_configured_issuer_are_accepted_for_this_audience(
    server: Server, provider: Provider
) -> None:
    bearer = await server.show(provider.minted())
    assert (bearer.user, bearer.client, bearer.resource) == ("ann", "an-agent", RESOURCE)
    await server.show(provider.minted(aud=[RESOURCE, "https://else.test"]))
    assert (await server.show(provider.minted(cnf={"jkt": "a-thumbprint"}))).jkt == "a-thumbprint"
    refused = {
        "audience": provider.minted(aud="https://else.test/mcp"),
        "audience with a slash": provider.minted(aud=RESOURCE + "/"),
        "issuer": provider.minted(iss="https://evil.test"),
        "issuer with a slash": provider.minted(iss=provider.url + "/"),
        "expired": provider.minted(exp=int(time.time()) - 60),
        "without an end": provider.minted(exp=None),
        "not yet": provider.minted(nbf=int(time.time()) + 600),
        "an ID token": provider.minted("JWT", nonce="n"),
        "another type": provider.minted("logout+jwt"),
        "bound to a certificate": provider.minted(cnf={"x5t#S256": "c"}),
        "bound oddly": provider.minted(cnf={"jkt": ""}),
        "bound more oddly": provider.minted(cnf="k"),
        "no access rule": provider.minted(groups=["guests"]),
    }
    assert [why for why, token in refused.items() if await _is_accepted(server, token)] == []


async def _is_accepted(server: Server, token: str) -> bool:
    try:
        await server.show(token)
    except UnauthorizedError:
        return False
    return True


async def test_a_signature_algorithm_that_is_not_configured_is_rejected(
    server: Server, provider: Provider
) -> None:
    token = provider.minted()
    await server.show(token)
    await server.declare(issuers={"corp": issuer(provider, algorithms=["RS256"])}, access=RULES)
    with pytest.raises(UnauthorizedError, match="signature algorithm"):
        await server.show(provider.minted())


async def test_a_new_key_is_fetched_and_a_removed_key_is_no_longer_valid(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolbus_oauth.accounts.oidc_providers.REFETCH_SECONDS", 0.0)
    before = provider.minted()
    await server.show(before)
    provider.say("/rotate")
    await server.show(provider.minted())
    with pytest.raises(UnauthorizedError, match="signature"):
        await server.show(before)


async def test_without_a_user_claim_a_subject_never_has_a_configured_users_name(
    server: Server, provider: Provider
) -> None:
    await server.declare(issuers={"corp": issuer(provider, user="")}, access=RULES)
    bearer = await server.show(provider.minted(sub="ann"))
    assert bearer.user == "corp/ann"


async def test_a_plugin_can_refuse_the_person_of_an_assertion(
    server: Server, provider: Provider, nats_server: NatsAt
) -> None:
    (row,) = await server.action("add_client", "Agent")
    pair = b64encode(f"{row['id']}:{row['secret']}".encode()).decode()
    plugin = {"hooks": ["on_login"], "sees": ["person"], "may": ["refuse"]}
    answer = {"verdict": "refuse", "reason": "not today"}
    seed = nats_server.seed(seed_of("probe"))
    async with plugin_program(nats_server.url, seed, lambda _: answer) as probe:
        declared = {"issuers": {"corp": issuer(provider)}, "access": RULES, "users": {"ann": {}}}
        await server.declare(**declared, plugins={"probe": plugin})
        changes = {"aud": BASE, "resource": RESOURCE, "client_id": row["id"], "jti": "2"}
        assertion = provider.minted("oauth-id-jag+jwt", **changes)
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        form = {"grant_type": grant, "assertion": assertion, "basic": pair}
        _, result = await server.form("/oauth/token", **form)
    assert result["error"] == "invalid_grant"
    assert "refused this sign-in: not today" in result["error_description"]
    expected = {"person": "ann", "provider": "corp", "access": "staff"}
    assert [each["content"] for each in probe.requests] == [expected]


async def test_an_assertion_of_the_issuer_is_redeemed_once_and_here(
    server: Server, provider: Provider
) -> None:
    (row,) = await server.action("add_client", "Agent")
    pair = b64encode(f"{row['id']}:{row['secret']}".encode()).decode()

    async def exchanged(typ: str = "oauth-id-jag+jwt", **changes: Any) -> dict[str, Any]:
        result = {"aud": BASE, "resource": RESOURCE, "client_id": row["id"], "jti": "1", **changes}
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assertion = provider.minted(typ, **result)
        form = {"grant_type": grant, "assertion": assertion, "basic": pair}
        return (await server.form("/oauth/token", **form))[1]

    result = await exchanged()
    assert "refresh_token" not in result
    bearer = await server.show(result["access_token"])
    assert (bearer.user, bearer.client, bearer.resource) == ("ann", row["id"], RESOURCE)
    assert (await exchanged())["error"] == "invalid_grant"  # the same jti
    wrongs: tuple[dict[str, Any], ...] = (
        {"aud": "https://else.test"}, {"aud": RESOURCE}, {"client_id": "another"},
        {"typ": "at+jwt"}, {"exp": 1}, {"iss": "https://evil.test"}, {"jti": None},
    )  # fmt: skip
    for at, wrong in enumerate(wrongs):
        refused = await exchanged(**{"jti": f"wrong-{at}", **wrong})
        assert refused["error"] == "invalid_grant", wrong
    assert (await exchanged(jti="a", resource=f"{BASE}/x"))["error"] == "invalid_target"
    assert (await exchanged(jti="b", groups=["guests"]))["error"] == "access_denied"


# -- client metadata documents ---------------------------------------------------------------------


@contextmanager
def documents(directory: Path, document: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Run a TLS server that answers every path with one document; list its requests."""
    paths: list[str] = []

    def answer(request: Request) -> Response:
        paths.append(request.path)
        if request.path == "/moved.json":
            return Response(302, headers={"location": "/client.json"})
        return Response(body=document)

    with answering(answer, certificate=Authority(directory).vouched("localhost")) as port:
        yield port, paths


async def test_a_client_is_described_by_its_own_document(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"client_name": "Described", "redirect_uris": [REDIRECT]}
    with documents(tmp_path, fields) as (port, _):
        at = f"https://localhost:{port}"
        fields["client_id"] = f"{at}/client.json"
        authority = str(tmp_path / "ca.pem")
        async with serving(settings, operator, monkeypatch, EGRESS_CA=authority) as server:
            await server.declare(access={"staff": {"tools": ["*"]}})
            await server.account()
            page = await ServiceBrowser(server).consenting(f"{at}/client.json")
            assert "Described" in page.text
            off = authorization_request(f"{at}/client.json", redirect_uri=REDIRECT + "x")
            assert (await ServiceBrowser(server).get("/oauth/authorize", **off)).status == 400
            for wrong in ("/other.json", "/moved.json", "", "/a/../client.json"):
                refused = await ServiceBrowser(server).get(
                    "/oauth/authorize", **authorization_request(at + wrong)
                )
                assert (refused.status, refused.location) == (400, ""), wrong


async def test_a_client_id_never_makes_the_gateway_call_a_private_address(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)
    with closing(listener):
        port = listener.getsockname()[1]
        hosts = (
            "127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001",
            "0177.0.0.1", "127.1", "localhost.", "10.0.0.1", "169.254.169.254", "0.0.0.0",
            "user@127.0.0.1",
        )  # fmt: skip
        async with serving(settings, operator, monkeypatch, EGRESS_ALLOW="") as server:
            await server.declare(access={"staff": {"tools": ["*"]}})
            for host in hosts:
                client = f"https://{host}:{port}/client.json"
                page = await ServiceBrowser(server).get(
                    "/oauth/authorize", **authorization_request(client)
                )
                assert (page.status, page.location) == (400, ""), host
        with pytest.raises(BlockingIOError):
            listener.accept()
