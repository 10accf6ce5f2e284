"""Servers that want OAuth: what is read of others, and a token at hand, without a bus."""

import asyncio
import json
import time
from typing import Any

import msgspec
import pytest

from toolbus_common.config import Server
from toolbus_common.config_store.loading.loader import load
from toolbus_common.contracts import (
    CallAdmitted,
    ConnectionCreated,
    ConnectionEnded,
    ProtocolFamily,
    UpstreamTokenQuery,
    UpstreamTokenReply,
)
from toolbus_common.errors import UnavailableError
from toolbus_executor.credentials import consent
from toolbus_executor.credentials.oauth_token import Bearer, ConsentRequiredError, with_header
from toolbus_executor.transport.http1 import Head
from toolbus_oauth.upstreams.client_identity import ClientIdentity
from toolbus_oauth.upstreams.connection_repository import link_for
from toolbus_oauth.upstreams.discovery import (
    AuthorizationServer,
    challenge_of,
    is_resource_of,
    scopes_in,
)
from toolbus_oauth.upstreams.token_client import (
    LONGEST_TOKEN,
    TokenRequestError,
    parse_token_response,
)

ID, REF = {"id": "x"}, "${env:SECRET}"
LINK = "https://gateway.test/oauth/connect/abc"


@pytest.mark.parametrize(
    ("header", "metadata", "scopes", "error"),
    [
        ('Bearer resource_metadata="https://a.test/x", scope="b c"', "https://a.test/x", "b c", ""),
        ('Basic realm="x", bearer scope=one,error="invalid_token"', "", "one", "invalid_token"),
        (r'Bearer realm="a \" b", scope="d"', "", "d", ""),
        ('Digest scope="Bearer x"', "", "", ""),
        ("Bearer", "", "", ""),
    ],
)
def test_a_challenge_is_read_as_it_is_written(
    header: str, metadata: str, scopes: str, error: str
) -> None:
    found = challenge_of(header)
    assert (found.metadata, " ".join(found.scopes), found.error) == (metadata, scopes, error)


def test_who_shows_a_certificate_asks_at_the_aliases_there_are_from_then_on() -> None:
    document: dict[str, Any] = {
        "token_endpoint": "https://far.test/token",
        "revocation_endpoint": "https://far.test/revoke",
        "mtls_endpoint_aliases": {"token_endpoint": "https://mtls.far.test/token"},
    }
    found, server = (
        AuthorizationServer("https://far.test", "", (), document),
        Server(url="https://docs.test"),
    )
    shows = ClientIdentity("x", "tls_client_auth", shown="a certificate")
    link = link_for("docs", server, "", found, shows, ())
    assert link.endpoint == "https://mtls.far.test/token"
    assert link.revocation == "https://far.test/revoke"
    link = link_for("docs", server, "", found, ClientIdentity("x", "none"), ())
    assert link.endpoint == "https://far.test/token"
    assert "a certificate" not in repr(shows)


@pytest.mark.parametrize(
    ("resource", "fits"),
    [
        ("https://docs.test/mcp", True),
        ("https://docs.test/", True),
        ("https://docs.test", True),
        ("https://DOCS.test:443/mcp/", True),
        ("https://docs.test/mc", False),
        ("https://docs.test/mcp/other", False),
        ("https://docs.test.evil.test/mcp", False),
        ("http://docs.test/mcp", False),
        ("https://docs.test/mcp#x", False),
        ("not a url", False),
    ],
)
def test_metadata_are_of_the_server_or_of_what_it_lies_below(resource: str, *, fits: bool) -> None:
    assert is_resource_of(resource, "https://docs.test/mcp") is fits


def test_only_scopes_that_can_be_sent_are_asked_for() -> None:
    assert scopes_in(["a", "a", 'b"', "c d", 7, "e" * 300, "f"]) == ("a", "f")
    assert len(scopes_in([f"s{number}" for number in range(1000)])) == 64


@pytest.mark.parametrize(
    "told",
    [
        {"access_token": "a\r\nX-Evil: 1", "token_type": "Bearer"},
        {"access_token": "a" * (LONGEST_TOKEN + 1), "token_type": "Bearer"},
        {"access_token": "a", "token_type": "mac"},
        {"access_token": 7, "token_type": "Bearer"},
        {},
    ],
)
def test_a_token_that_fits_no_header_is_none(told: dict[str, Any]) -> None:
    with pytest.raises(TokenRequestError):
        parse_token_response(told, 0.0)


@pytest.mark.parametrize(
    ("seconds", "ends"), [(60, 60.0), ("60", 60.0), (-1, 3600.0), ({}, 3600.0)]
)
def test_a_token_lasts_as_long_as_is_said_if_that_can_be_read(seconds: Any, ends: float) -> None:
    told = {"access_token": "a", "token_type": "bearer", "expires_in": seconds}
    assert parse_token_response(told, 0.0).ends == ends


@pytest.mark.parametrize(
    "more",
    [
        {"oauth": {}, "command": ["x"], "url": ""},
        {"oauth": {}, "headers": {"authorization": "Bearer x"}},
        {"oauth": {"tokens": "user"}, "tools": {"t": {"cache": {"ttl": 5, "scope": "public"}}}},
        {"oauth": {"tokens": "user", "grant": "client_credentials"}},
        {"oauth": {"listing": "ann"}},
        {"oauth": {"grant": "workload"}},
        {"oauth": {"grant": "workload", "clients": {"https://far.test": {"id": "x"}}}},
        {"oauth": {"grant": "enterprise", "tokens": "user", "clients": {"https://a.test": ID}}},
        {"oauth": {"grant": "enterprise", "provider": "corp", "clients": {"https://a.test": ID}}},
        {"oauth": {"grant": "enterprise", "provider": "corp", "tokens": "user"}},
        {"oauth": {"provider": "corp"}},
        {"oauth": {"clients": {"https://far.test": {**ID, "assertion": "in the open"}}}},
        {"oauth": {"clients": {"https://far.test": {**ID, "key": REF, "assertion": REF}}}},
        {"oauth": {"clients": {"https://far.test": {"id": "x", "secret": "in the open"}}}},
    ],
)
def test_what_does_not_fit_together_is_not_declared(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"oauth|owner|user|reference|assertion|provider"):
        Server.model_validate_json(msgspec.json.encode({"url": "https://docs.test/mcp", **more}))


class Oauth:
    """Answers as it is told to; `asked` is what it heard."""

    def __init__(self, *told: UpstreamTokenReply | Exception) -> None:
        self._told = list(told)
        self.asked: list[UpstreamTokenQuery] = []

    async def request(self, asked: UpstreamTokenQuery) -> UpstreamTokenReply:
        self.asked.append(asked)
        await asyncio.sleep(0)
        told = self._told.pop(0) if len(self._told) > 1 else self._told[0]
        if isinstance(told, Exception):
            raise told
        return told


def told(token: str, seconds: float = 3600.0) -> UpstreamTokenReply:
    return UpstreamTokenReply(token=token, ends=time.time() + seconds)


async def test_a_crowd_of_calls_asks_for_one_token_once() -> None:
    oauth = Oauth(told("one"))
    bearer = Bearer("docs", "ann", oauth.request)
    lines = await asyncio.gather(*(bearer.line() for _ in range(50)))
    assert set(lines) == {b"Authorization: Bearer one\r\n"}
    assert bearer.now() == lines[0]
    assert len(oauth.asked) == 1


async def test_a_token_that_was_refused_is_asked_for_anew_once_by_all_who_were_refused() -> None:
    oauth = Oauth(told("one"), told("two"))
    bearer = Bearer("docs", "ann", oauth.request)
    first = await bearer.line()
    told_anew = await asyncio.gather(*(bearer.another(first, "Bearer") for _ in range(20)))
    assert set(told_anew) == {b"Authorization: Bearer two\r\n"}
    assert len(oauth.asked) == 2
    assert oauth.asked[1].rejected


async def test_the_same_token_again_is_no_other_token() -> None:
    bearer = Bearer("docs", "ann", Oauth(told("one")).request)
    first = await bearer.line()
    with pytest.raises(ConsentRequiredError):
        await bearer.another(first, "Bearer")


async def test_without_oauth_a_call_is_told_so_and_what_to_do() -> None:
    bearer = Bearer("docs", "ann", Oauth(UnavailableError("No oauth service is running.")).request)
    with pytest.raises(ConsentRequiredError, match=r"No oauth service is running. Retry shortly."):
        await bearer.needed()


@pytest.mark.parametrize(
    ("status", "header", "concerns"),
    [
        (401, b"", True),
        (403, b'Bearer error="insufficient_scope"', True),
        (403, b"", False),
        (200, b"Bearer", False),
        (500, b"Bearer", False),
    ],
)
def test_only_a_refusal_for_want_of_a_token_is_one(
    status: int, header: bytes, *, concerns: bool
) -> None:
    bearer = Bearer("docs", "", Oauth(told("one")).request)
    found = bearer.refusal(Head(status, {b"www-authenticate": header}))
    assert (found is not None) is concerns


def test_a_token_stands_among_the_headers_of_its_request() -> None:
    request = b"POST /mcp HTTP/1.1\r\nHost: docs.test\r\n\r\n{}"
    assert with_header(request, b"Authorization: Bearer x\r\n") == (
        b"POST /mcp HTTP/1.1\r\nAuthorization: Bearer x\r\nHost: docs.test\r\n\r\n{}"
    )


def call(extra: str = "", capabilities: str = "{}", method: str = "tools/call") -> CallAdmitted:
    return CallAdmitted(
        call_id="c", reply_to="r", server="docs", tool="t", customer="s", key="k",
        family=ProtocolFamily.MODERN,
        deadline=0.0, traceparent="", extra=extra, capabilities=capabilities, method=method,
    )  # fmt: skip


def test_who_can_open_pages_is_asked_to_and_others_are_told_the_link() -> None:
    error = ConsentRequiredError("Nobody has.", link=LINK)
    request = msgspec.json.decode(
        consent.consent_required(call("", '{"elicitation":{"url":{}}}'), error, "docs")
    )
    assert request["inputRequests"][consent.QUESTION]["params"]["url"] == LINK
    message = msgspec.json.decode(consent.consent_required(call(), error, "docs"))
    assert message["isError"] is True
    assert LINK in message["content"][0]["text"]
    with pytest.raises(ConsentRequiredError, match=LINK):
        consent.consent_required(call(method="resources/read"), error, "docs")


def test_our_answer_is_taken_out_of_a_call_and_the_servers_stay() -> None:
    brought = {consent.QUESTION: {"action": "accept"}, "own": {"action": "accept"}}
    extra = msgspec.json.encode({"inputResponses": brought, "requestState": "s"}).decode()
    found = consent.take_answer(call(extra))
    assert found.action == "accept"
    kept = {"inputResponses": {"own": {"action": "accept"}}, "requestState": "s"}
    assert msgspec.json.decode(found.call.extra) == kept
    ours = msgspec.json.encode({"inputResponses": {consent.QUESTION: {"action": "no"}}}).decode()
    assert (consent.take_answer(call(ours)).action, consent.take_answer(call(ours)).call.extra) == (
        "cancel", "",
    )  # fmt: skip
    assert consent.take_answer(call("{}")).action == ""


@pytest.mark.parametrize("event", [ConnectionCreated, ConnectionEnded])
def test_events_of_connections_name_people_by_pseudonyms(event: Any) -> None:
    about = {"id": "i", "at": 0.0, "customer": "s", "server": "docs"}
    assert event(**about, user="ann").people == {"user": "user:ann"}
    assert event(**about).people == {}


def test_who_is_to_vouch_for_people_must_be_declared() -> None:
    clients = {"https://far.test": ID}
    oauth = {"grant": "enterprise", "tokens": "user", "provider": "corp", "clients": clients}
    servers = {"docs": {"url": "https://docs.test/mcp", "oauth": oauth}}
    (fault,) = load(json.dumps({"servers": servers}), {}).problems
    assert "no issuer 'corp' is configured" in fault.message
    issuers = {"corp": {"url": "https://corp.test", "client_id": "c"}}
    assert load(json.dumps({"servers": servers, "issuers": issuers}), {}).problems == ()
