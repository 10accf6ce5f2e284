"""The access token of a server: fetched once, replaced after a rejection."""

import asyncio
import time

import pytest

from toolbus_common.contracts import (
    UpstreamTokenQuery,
    UpstreamTokenReply,
)
from toolbus_common.errors import UnavailableError
from toolbus_executor.credentials.oauth_token import Bearer, ConsentRequiredError, with_header
from toolbus_executor.transport.http1 import Head


class OAuthStub:
    """The OAuth service with scripted replies; `queries` holds what it received."""

    def __init__(self, *replies: UpstreamTokenReply | Exception) -> None:
        self._replies = list(replies)
        self.queries: list[UpstreamTokenQuery] = []

    async def request(self, query: UpstreamTokenQuery) -> UpstreamTokenReply:
        self.queries.append(query)
        await asyncio.sleep(0)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


def reply(token: str, seconds: float = 3600.0) -> UpstreamTokenReply:
    return UpstreamTokenReply(token=token, ends=time.time() + seconds)


async def test_concurrent_calls_request_one_token_once() -> None:
    oauth = OAuthStub(reply("one"))
    bearer = Bearer("docs", "ann", oauth.request)
    lines = await asyncio.gather(*(bearer.line() for _ in range(50)))
    assert set(lines) == {b"Authorization: Bearer one\r\n"}
    assert bearer.now() == lines[0]
    assert len(oauth.queries) == 1


async def test_a_rejected_token_is_renewed_once_for_all_calls() -> None:
    oauth = OAuthStub(reply("one"), reply("two"))
    bearer = Bearer("docs", "ann", oauth.request)
    first = await bearer.line()
    renewed = await asyncio.gather(*(bearer.another(first, "Bearer") for _ in range(20)))
    assert set(renewed) == {b"Authorization: Bearer two\r\n"}
    assert len(oauth.queries) == 2
    assert oauth.queries[1].rejected


async def test_a_renewal_that_returns_the_same_token_requires_consent() -> None:
    bearer = Bearer("docs", "ann", OAuthStub(reply("one")).request)
    first = await bearer.line()
    with pytest.raises(ConsentRequiredError):
        await bearer.another(first, "Bearer")


async def test_an_unavailable_oauth_service_is_reported_with_advice() -> None:
    bearer = Bearer(
        "docs", "ann", OAuthStub(UnavailableError("No oauth service is running.")).request
    )
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
def test_only_a_rejection_that_concerns_the_token_counts(
    status: int, header: bytes, *, concerns: bool
) -> None:
    bearer = Bearer("docs", "", OAuthStub(reply("one")).request)
    found = bearer.refusal(Head(status, {b"www-authenticate": header}))
    assert (found is not None) is concerns


def test_a_token_is_inserted_into_the_request_headers() -> None:
    request = b"POST /mcp HTTP/1.1\r\nHost: docs.test\r\n\r\n{}"
    assert with_header(request, b"Authorization: Bearer x\r\n") == (
        b"POST /mcp HTTP/1.1\r\nAuthorization: Bearer x\r\nHost: docs.test\r\n\r\n{}"
    )
