"""Bound tokens towards a server: a fresh proof for each request, with the nonce it gave last."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.oauth.dpop_proofs import read
from toolbus_common.contracts import UpstreamTokenReply
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_common.crypto.dpop.proof import digest_of
from toolbus_executor.credentials.dpop import Prover, prover_of
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import Head
from toolbus_executor.upstreams.mcp.http_transport import Transport

KEY = ProofKey.new()
NONCE = b'DPoP error="use_dpop_nonce"'


def bearer(*told: UpstreamTokenReply) -> Bearer:
    """One whose oauth tells these, one after the other."""
    left = list(told)

    async def request(_: Any) -> UpstreamTokenReply:
        return left.pop(0) if len(left) > 1 else left[0]

    return Bearer("docs", "", request)


def token(name: str, key: str = KEY.kept) -> UpstreamTokenReply:
    return UpstreamTokenReply(token=name, key=key, ends=time.time() + 3600)


@dataclass
class Far:
    """A server that answers as it is told to; `seen` are the heads of its requests."""

    answer: Callable[[int, dict[str, str]], tuple[int, str]]
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Far"]:
        server = await asyncio.start_server(self._one, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
            yield self

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (x.split(": ", 1) for x in lines)}
            self.seen.append((first, headers))
            status, more = self.answer(len(self.seen), headers)
            text = f"HTTP/1.1 {status} X\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"
            writer.write(text.encode())
            await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()


async def asked(far: Far, shown: Bearer, path: bytes = b"/mcp") -> Head:
    transport = Transport(far.url, {}, Dialer(named=lambda: True))
    transport.bearer = shown
    try:
        request = b"POST %b HTTP/1.1\r\n%b\r\n" % (path, transport.common)
        return (await transport.request(request, None, 60.0))[0]
    finally:
        transport.close()


def proved(far: Far, at: int) -> dict[str, Any]:
    """What the proof of a request says."""
    return read(far.seen[at][1]["dpop"])[0]


async def test_each_request_carries_the_token_and_a_proof_of_its_own() -> None:
    async with Far(lambda *_: (200, "")).serving() as far:
        shown = bearer(token("one"))
        for _ in range(2):
            assert (await asked(far, shown, b"/mcp?session=x")).status == 200
    first, second = (proved(far, at) for at in (0, 1))
    assert first["jti"] != second["jti"]
    assert (first["htm"], first["htu"], first["ath"]) == ("POST", far.url, digest_of("one"))
    assert far.seen[0][1]["authorization"] == "DPoP one"
    jkt = read(KEY.proof("GET", far.url))[1]
    assert read(far.seen[0][1]["dpop"])[1] == jkt


async def test_a_server_that_wants_a_nonce_is_asked_once_more_and_then_at_once() -> None:
    def answer(_: int, headers: dict[str, str]) -> tuple[int, str]:
        if read(headers["dpop"])[0].get("nonce") == "n-1":
            return 200, ""
        return 401, 'WWW-Authenticate: DPoP error="use_dpop_nonce"\r\nDPoP-Nonce: n-1\r\n'

    async with Far(answer).serving() as far:
        shown = bearer(token("one"))
        assert [(await asked(far, shown)).status for _ in range(2)] == [200, 200]
    assert [proved(far, at).get("nonce") for at in range(3)] == [None, "n-1", "n-1"]
    assert len({proved(far, at)["jti"] for at in range(3)}) == 3


async def test_a_token_that_was_refused_is_another_ones_with_the_nonce_that_is_known() -> None:
    def answer(_: int, headers: dict[str, str]) -> tuple[int, str]:
        fine = headers["authorization"] == "DPoP two"
        return (200, "") if fine else (401, "DPoP-Nonce: n-1\r\n")

    async with Far(answer).serving() as far:
        assert (await asked(far, bearer(token("one"), token("two")))).status == 200
    assert [each["authorization"] for _, each in far.seen] == ["DPoP one", "DPoP two"]
    assert proved(far, 1)["nonce"] == "n-1"


async def test_a_token_that_is_bound_to_nothing_comes_without_a_proof() -> None:
    async with Far(lambda *_: (200, "")).serving() as far:
        assert (await asked(far, bearer(token("one", "")))).status == 200
    assert far.seen[0][1]["authorization"] == "Bearer one"
    assert "dpop" not in far.seen[0][1]


def test_a_nonce_that_was_used_is_no_reason_to_ask_again() -> None:
    prover = Prover("one", KEY.kept)
    head = Head(401, {b"dpop-nonce": b"n", b"www-authenticate": NONCE})
    assert [prover.needs_retry(head, "") for _ in range(2)] == [True, True], "two at once"
    assert not prover.needs_retry(head, "n")
    assert not prover.needs_retry(Head(401, {b"www-authenticate": NONCE}), "")
    assert not prover.needs_retry(Head(401, {**head.headers, b"dpop-nonce": b"n" * 5000}), "")
    assert not prover.needs_retry(Head(200, {b"dpop-nonce": b"m"}), "")
    assert prover.nonce == "m"


def test_a_key_is_read_once_as_long_as_its_token_is_the_same() -> None:
    first = prover_of(None, "one", KEY.kept)
    assert first is not None
    first.nonce = "n"
    assert prover_of(first, "one", KEY.kept) is first
    second = prover_of(first, "two", KEY.kept)
    assert second is not None
    assert (second.token, second.nonce) == ("two", "n")
    assert prover_of(second, "three", "") is None
