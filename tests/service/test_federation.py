"""Other people's servers: OpenID providers that vouch, and documents that describe clients."""

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
from harness.network.json_server import Request, Response, answering
from harness.oauth.certificates import Authority
from harness.oauth.openid_process import Provider, issuer
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
    """One for all tests of this file."""
    with Provider(tmp_path_factory.mktemp("provider")).running() as made:
        yield made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Provider]:
    """Another, whose operator means harm."""
    with Provider(tmp_path).running() as made:
        yield made


@pytest.fixture
async def server(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> AsyncIterator[Server]:
    provider.as_ever()
    # Nothing is listed: what may be called is what the operator's own file names.
    async with serving(settings, operator, monkeypatch, EGRESS_ALLOW="") as made:
        await made.declare(issuers={"corp": issuer(provider)}, access=RULES, users={"ann": {}})
        yield made


def _ann() -> dict[str, Any]:
    return {"sub": "s-1", "login": "ann", "groups": ["staff"]}


async def _away(walker: ServiceBrowser, provider: Provider) -> str:
    """Where the browser is sent back after signing in at the provider."""
    return provider.arrive(await _sent(walker, "corp"))


async def _sent(walker: ServiceBrowser, name: str) -> str:
    """Where the browser is sent to sign in."""
    client = (await walker.server.register())["client_id"]
    page = await walker.get("/oauth/authorize", **authorization_request(client))
    return (await walker.post("/oauth/sign-in", ticket=page.ticket, issuer=name)).link


async def test_a_person_signs_in_where_the_company_has_them_sign_in(
    server: Server, provider: Provider
) -> None:
    walker = ServiceBrowser(server)
    shown = await walker.get(await _away(walker, provider))
    assert "ann" in shown.text
    code = (await walker.answered(shown)).parameters["code"]
    client = (await server.action("clients"))[-1]["id"]
    _, result = await server.token(client, code)
    bearer = await server.show(result["access_token"])
    assert (bearer.access, bearer.user) == ("staff", "ann")
    assert "ann" not in bearer.name


async def test_a_way_back_is_taken_once_and_by_its_own_browser(
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


async def test_an_answer_of_another_provider_is_not_mixed_up_with_the_one_asked(
    server: Server, provider: Provider
) -> None:
    async def answered() -> Page:
        walker = ServiceBrowser(server)
        return await walker.get(await _away(walker, provider))

    assert (await answered()).status == 200
    for iss in ("https://evil.test", provider.url + "/", None):
        provider.say(iss=iss)
        assert (await answered()).status == 502, iss


async def test_an_answer_of_one_provider_is_not_taken_to_another_where_neither_names_itself(
    server: Server, provider: Provider, other: Provider
) -> None:
    for each in (provider, other):
        each.say(iss=None, advertised=False)
    issuers = {"corp": issuer(provider), "evil": issuer(other)}
    await server.declare(issuers=issuers, access=RULES)
    walker = ServiceBrowser(server)
    own = f"redirect_uri={quote(BASE, safe='')}%2Foauth%2Fcallback%2F"
    lure = (await _sent(walker, "evil")).replace(f"{own}evil", f"{own}corp")
    back = provider.arrive(lure.replace(other.url, provider.url))
    assert back.startswith("/oauth/callback/corp?code=")
    page = await walker.get(back)
    assert page.status == 502
    assert "from another issuer" in page.text
    assert "/token" not in other.seen()
    assert (await walker.get(provider.arrive(await _sent(walker, "corp")))).status == 200


async def test_an_id_token_of_another_sign_in_or_program_signs_nobody_in(
    server: Server, provider: Provider
) -> None:
    for wrong in ({"nonce": "of another"}, {"aud": "another"}, {"exp": 1}, {"iss": "https://x"}):
        provider.say(claims={**_ann(), **wrong})
        walker = ServiceBrowser(server)
        assert (await walker.get(await _away(walker, provider))).status == 502, wrong


async def test_one_whom_no_rule_covers_is_told_so(server: Server, provider: Provider) -> None:
    provider.say(claims={"sub": "s-2", "login": "eve", "groups": ["guests"]})
    walker = ServiceBrowser(server)
    page = await walker.get(await _away(walker, provider))
    assert page.status == 403
    assert "no access rule" in page.text


async def test_tokens_of_a_declared_issuer_are_taken_when_they_were_made_for_here(
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
    assert [why for why, token in refused.items() if await _is_taken(server, token)] == []


async def _is_taken(server: Server, token: str) -> bool:
    try:
        await server.show(token)
    except UnauthorizedError:
        return False
    return True


async def test_a_way_of_signing_that_is_not_declared_is_not_taken(
    server: Server, provider: Provider
) -> None:
    token = provider.minted()
    await server.show(token)
    await server.declare(issuers={"corp": issuer(provider, algorithms=["RS256"])}, access=RULES)
    with pytest.raises(UnauthorizedError, match="signature algorithm"):
        await server.show(provider.minted())


async def test_a_key_that_is_new_is_looked_for_and_one_that_is_gone_no_longer_counts(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolbus_oauth.accounts.oidc_providers.REFETCH_SECONDS", 0.0)
    before = provider.minted()
    await server.show(before)
    provider.say("/rotate")
    await server.show(provider.minted())
    with pytest.raises(UnauthorizedError, match="signature"):
        await server.show(before)


async def test_nobody_of_an_issuer_without_a_user_claim_bears_a_declared_name(
    server: Server, provider: Provider
) -> None:
    await server.declare(issuers={"corp": issuer(provider, user="")}, access=RULES)
    bearer = await server.show(provider.minted(sub="ann"))
    assert bearer.user == "corp/ann"


async def test_a_company_vouches_that_a_program_may_act_for_somebody_once_and_here(
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


# -- documents of clients --------------------------------------------------------------------


@contextmanager
def documents(directory: Path, told: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """A TLS server on localhost that answers every path with one document; what it was asked."""
    seen: list[str] = []

    def answer(request: Request) -> Response:
        seen.append(request.path)
        if request.path == "/moved.json":
            return Response(302, headers={"location": "/client.json"})
        return Response(body=told)

    with answering(answer, certificate=Authority(directory).vouched("localhost")) as port:
        yield port, seen


async def test_a_client_described_by_its_own_document_is_taken_at_its_word(
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


async def test_no_clients_document_makes_the_gateway_call_what_is_not_public(
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
