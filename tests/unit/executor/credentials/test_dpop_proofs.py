"""Bound tokens towards a server: a fresh proof for each request, with the nonce it gave last."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.network.tcp_servers import served
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


def bearer(*replies: UpstreamTokenReply) -> Bearer:
    """Return a bearer whose OAuth service returns these replies in order."""
    left = list(replies)

    async def request(_: Any) -> UpstreamTokenReply:
        return left.pop(0) if len(left) > 1 else left[0]

    return Bearer("docs", "", request)


def token(name: str, key: str = KEY.kept) -> UpstreamTokenReply:
    return UpstreamTokenReply(token=name, key=key, ends=time.time() + 3600)


@dataclass
class ScriptedServer:
    """A server with scripted responses; `seen` holds the heads of its requests."""

    answer: Callable[[int, dict[str, str]], tuple[int, str]]
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ScriptedServer"]:
        async with served(self._one) as port:
            self.url = f"http://127.0.0.1:{port}/mcp"
            yield self

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (x.split(": ", 1) for x in lines)}
        self.seen.append((first, headers))
        status, more = self.answer(len(self.seen), headers)
        text = f"HTTP/1.1 {status} X\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(text.encode())
        await writer.drain()


async def sent(server: ScriptedServer, shown: Bearer, path: bytes = b"/mcp") -> Head:
    transport = Transport(server.url, {}, Dialer(named=lambda: True))
    transport.bearer = shown
    try:
        request = b"POST %b HTTP/1.1\r\n%b\r\n" % (path, transport.common)
        return (await transport.request(request, None, 60.0))[0]
    finally:
        transport.close()


def proved(server: ScriptedServer, at: int) -> dict[str, Any]:
    """Return the claims of the proof of a request."""
    return read(server.seen[at][1]["dpop"])[0]


async def test_each_request_has_the_token_and_its_own_proof() -> None:
    async with ScriptedServer(lambda *_: (200, "")).serving() as server:
        shown = bearer(token("one"))
        for _ in range(2):
            assert (await sent(server, shown, b"/mcp?session=x")).status == 200
    first, second = (proved(server, at) for at in (0, 1))
    assert first["jti"] != second["jti"]
    assert (first["htm"], first["htu"], first["ath"]) == ("POST", server.url, digest_of("one"))
    assert server.seen[0][1]["authorization"] == "DPoP one"
    jkt = read(KEY.proof("GET", server.url))[1]
    assert read(server.seen[0][1]["dpop"])[1] == jkt


async def test_a_required_nonce_causes_one_retry_and_is_then_remembered() -> None:
    def answer(_: int, headers: dict[str, str]) -> tuple[int, str]:
        if read(headers["dpop"])[0].get("nonce") == "n-1":
            return 200, ""
        return 401, 'WWW-Authenticate: DPoP error="use_dpop_nonce"\r\nDPoP-Nonce: n-1\r\n'

    async with ScriptedServer(answer).serving() as server:
        shown = bearer(token("one"))
        assert [(await sent(server, shown)).status for _ in range(2)] == [200, 200]
    assert [proved(server, at).get("nonce") for at in range(3)] == [None, "n-1", "n-1"]
    assert len({proved(server, at)["jti"] for at in range(3)}) == 3


async def test_a_rejected_token_is_replaced_and_the_known_nonce_reused() -> None:
    def answer(_: int, headers: dict[str, str]) -> tuple[int, str]:
        fine = headers["authorization"] == "DPoP two"
        return (200, "") if fine else (401, "DPoP-Nonce: n-1\r\n")

    async with ScriptedServer(answer).serving() as server:
        assert (await sent(server, bearer(token("one"), token("two")))).status == 200
    assert [each["authorization"] for _, each in server.seen] == ["DPoP one", "DPoP two"]
    assert proved(server, 1)["nonce"] == "n-1"


async def test_an_unbound_token_is_sent_without_a_proof() -> None:
    async with ScriptedServer(lambda *_: (200, "")).serving() as server:
        assert (await sent(server, bearer(token("one", "")))).status == 200
    assert server.seen[0][1]["authorization"] == "Bearer one"
    assert "dpop" not in server.seen[0][1]


def test_a_known_nonce_is_no_reason_for_a_retry() -> None:
    prover = Prover("one", KEY.kept)
    head = Head(401, {b"dpop-nonce": b"n", b"www-authenticate": NONCE})
    assert [prover.needs_retry(head, "") for _ in range(2)] == [True, True], (
        "two calls share one parsed key"
    )
    assert not prover.needs_retry(head, "n")
    assert not prover.needs_retry(Head(401, {b"www-authenticate": NONCE}), "")
    assert not prover.needs_retry(Head(401, {**head.headers, b"dpop-nonce": b"n" * 5000}), "")
    assert not prover.needs_retry(Head(200, {b"dpop-nonce": b"m"}), "")
    assert prover.nonce == "m"


def test_a_key_is_parsed_once_per_token() -> None:
    first = prover_of(None, "one", KEY.kept)
    assert first is not None
    first.nonce = "n"
    assert prover_of(first, "one", KEY.kept) is first
    second = prover_of(first, "two", KEY.kept)
    assert second is not None
    assert (second.token, second.nonce) == ("two", "n")
    assert prover_of(second, "three", "") is None
