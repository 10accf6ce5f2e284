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
    assert oauth.asked[1].refused


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
