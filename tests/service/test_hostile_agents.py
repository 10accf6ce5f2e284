"""A2A agents that send invalid, endless or foreign data."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.network.json_server import Request, Response, answering
from harness.network.tcp_servers import served
from harness.services.call_runner import AT_LOOPBACK, CallRunner
from toolbus_common.config import Server
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.transport.http1 import LARGEST_BODY
from toolbus_executor.upstreams.a2a import A2aUpstream
from toolbus_executor.upstreams.a2a.card import LARGEST_CARD, MAX_SKILLS
from toolbus_executor.upstreams.a2a.handles import Handles

TOKEN = "Bearer hostile-agents-must-not-repeat-this"
SKILL = {"id": "work", "name": "Work", "description": "Works.", "tags": []}
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
Answer = Callable[[Request], Response]


@dataclass
class HostileAgent:
    """An agent whose card and responses a test chooses."""

    origin: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    answer: Answer = lambda _request: Response()
    card_answer: Response | None = None
    received: list[Request] = field(default_factory=list)

    def respond(self, request: Request) -> Response:
        self.received.append(request)
        if request.method == "GET":
            return self.card_answer or Response(body=self.card)
        return self.answer(request)


@contextmanager
def listening() -> Iterator[HostileAgent]:
    agent = HostileAgent()
    with answering(agent.respond) as port:
        agent.origin = f"http://127.0.0.1:{port}"
        agent.card = card_at(f"{agent.origin}/rpc")
        yield agent


@pytest.fixture
def agent() -> Iterator[HostileAgent]:
    with listening() as agent:
        yield agent


def card_at(url: str, *, streaming: bool = False, skills: Any = (SKILL,)) -> dict[str, Any]:
    interface = {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    return {
        "name": "Hostile", "capabilities": {"streaming": streaming}, "skills": list(skills),
        "supportedInterfaces": [interface],
    }  # fmt: skip


def result(content: Any) -> Answer:
    return lambda request: Response(
        body={"jsonrpc": "2.0", "id": request.json["id"], "result": content}
    )


def task(state: str = "COMPLETED", **more: Any) -> dict[str, Any]:
    status = {"state": f"TASK_STATE_{state}"}
    return {"task": {"id": "t1", "contextId": "c1", "status": status, **more}}


@asynccontextmanager
async def opened(url: str, limit: float = 20, **declared: Any) -> AsyncIterator[CallRunner]:
    client = CallRunner(timeout=limit, max_total_timeout=limit)
    server, handles = Server(a2a=url, **declared), Handles(lambda: [b"k" * 32], "s")
    upstream = A2aUpstream(server, {"Authorization": TOKEN}, client.news, AT_LOOPBACK, handles)
    try:
        await client.open(upstream)
        yield client
    finally:
        client.upstream = upstream
        await client.close()


async def test_a_card_that_is_too_large_is_refused(agent: HostileAgent) -> None:
    agent.card["description"] = "x" * LARGEST_CARD
    with pytest.raises(UpstreamInvalidError, match=f"more than {LARGEST_CARD}"):
        async with opened(agent.origin):
            pass


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (DEEP, "is not an agent card"),
        (b"x" * (LARGEST_BODY + 1), "too large"),
        (b"\xff\xfe", "is not an agent card"),
        (b"[]", "is not an agent card"),
        ({"name": "x", "skills": [{"id": 1}]}, "is not an agent card"),
        ({"name": "x"}, "offers no JSON-RPC interface"),
        (card_at("grpc://x") | {"supportedInterfaces": []}, "offers no JSON-RPC interface"),
    ],
    ids=["deep", "endless", "bytes", "list", "types", "nothing", "none"],
)
async def test_a_malformed_card_is_refused(agent: HostileAgent, body: Any, why: str) -> None:
    agent.card_answer = Response(body=body)
    with pytest.raises(UpstreamInvalidError, match=why):
        async with opened(agent.origin):
            pass


async def test_a_card_with_too_many_or_equal_skills_is_shortened(agent: HostileAgent) -> None:
    many = [SKILL | {"id": f"s{number}"} for number in range(MAX_SKILLS + 5)]
    agent.card = card_at(f"{agent.origin}/rpc", skills=[*many[:2], many[0], *many[2:]])
    async with opened(agent.origin) as client:
        assert len(client.listing.tools) == MAX_SKILLS - 1
        assert client.upstream.left_out["skills"].startswith("6 more")
        assert "equal" in client.upstream.left_out["s0"]


async def test_a_card_cannot_direct_requests_to_another_origin(agent: HostileAgent) -> None:
    with listening() as other:
        agent.card = card_at(f"{other.origin}/rpc")
        with pytest.raises(UpstreamInvalidError, match=r"another origin.*'base_url'"):
            async with opened(agent.origin):
                pass
        assert other.received == []


async def test_base_url_permits_another_origin_and_keeps_the_credentials_there(
    agent: HostileAgent,
) -> None:
    with listening() as other:
        other.answer = result(task())
        async with opened(agent.origin, base_url=f"{other.origin}/a2a") as client:
            assert (await client.call("work", {"message": "x"})).last["content"] == []
        (request,) = other.received
        assert (request.path, request.headers["authorization"]) == ("/a2a", TOKEN)
        assert "authorization" not in agent.received[0].headers


async def test_redirects_are_not_followed(agent: HostileAgent) -> None:
    with listening() as inner:
        away = {"location": f"{inner.origin}/latest/meta-data"}
        for status in (301, 302, 303, 307, 308):
            agent.answer = lambda _request, status=status: Response(status, headers=away)  # type: ignore[misc]
            async with opened(agent.origin) as client:
                reply = (await client.call("work", {"message": "x"})).last
                assert "a redirect; it was not followed" in reply["content"][0]["text"]
            agent.card_answer = Response(status, headers=away)
            with pytest.raises(UpstreamInvalidError, match="has moved"):
                async with opened(agent.origin):
                    pass
            agent.card_answer = None
        assert inner.received == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (task(id="other"), "another task"),
        ({"message": {"parts": [], "taskId": "other"}}, "another task"),
        ({"task": {"id": "t1"}}, "has no state"),
        ({"task": {"id": 7, "status": {"state": "x"}}}, "is not text"),
        ({"task": {"id": "t1", "status": {"state": "x"}, "artifacts": {"a": 1}}}, "not a list"),
        ({"task": {"id": "t1", "status": {"state": "x"}, "artifacts": [1]}}, "not an object"),
        ({"task": {"id": "t" * 300, "status": {"state": "x"}}}, "another task"),
        ({"kind": "nothing"}, "neither a task nor a message"),
        ([], "neither a task nor a message"),
        (None, "neither a result nor an error"),
    ],
)
async def test_a_malformed_answer_about_a_task_fails_the_call(
    agent: HostileAgent, content: Any, why: str
) -> None:
    agent.answer = result(task("INPUT_REQUIRED"))
    async with opened(agent.origin) as client:
        about = (await client.call("work", {"message": "x"})).last["structuredContent"]
        agent.answer = result(content)
        reply = await client.call("work", {"message": "y", "task_id": about["task_id"]})
        assert isinstance(reply.error, GarbageError)
        assert why in reply.error.reason


@pytest.mark.parametrize(
    "body",
    [b"<html>", DEEP, b'{"result":' + DEEP + b"}", b""],
    ids=["html", "deep", "deep result", "empty"],
)
async def test_a_response_that_is_not_json_rpc_fails_the_call(
    agent: HostileAgent, body: bytes
) -> None:
    agent.answer = lambda _request: Response(body=body)
    async with opened(agent.origin) as client:
        assert isinstance((await client.call("work", {"message": "x"})).error, GarbageError)


async def test_too_large_answers_fail_the_call(agent: HostileAgent) -> None:
    parts = [{"text": "x"}] * 2_001
    large = [{"artifactId": "a", "parts": [{"text": "x" * (5 << 20)}]}]
    for artifacts in ([{"artifactId": "a", "parts": parts}], large):
        agent.answer = result(task(artifacts=artifacts))
        async with opened(agent.origin) as client:
            error = (await client.call("work", {"message": "x"})).error
            assert "too large" in error.reason


async def test_secrets_in_answers_are_redacted(agent: HostileAgent) -> None:
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": f"I saw {TOKEN}"}]}
    agent.answer = result({"message": message})
    async with opened(agent.origin) as client:
        assert (await client.call("work", {"message": "x"})).text == "I saw (secret)"
        agent.answer = lambda request: Response(
            body={
                "jsonrpc": "2.0",
                "id": request.json["id"],
                "error": {"code": 1, "message": TOKEN},
            }
        )
        assert TOKEN not in (await client.call("work", {"message": "x"})).text


async def test_files_of_other_schemes_are_not_linked(agent: HostileAgent) -> None:
    parts = [{"url": "file:///etc/passwd", "filename": "x"}, {"odd": 1}]
    agent.answer = result(task(artifacts=[{"artifactId": "a", "parts": parts}]))
    async with opened(agent.origin) as client:
        content = (await client.call("work", {"message": "x"})).last["content"]
        assert {each["type"] for each in content} == {"text"}


STATUS = {"taskId": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_WORKING"}}
ARTIFACT = {
    "taskId": "t1", "append": True,
    "artifact": {"artifactId": "a", "parts": [{"text": "x" * 100_000}]},
}  # fmt: skip


def event(content: dict[str, Any]) -> bytes:
    body = {"jsonrpc": "2.0", "id": 1, "result": content}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


@asynccontextmanager
async def streaming(first: bytes, forever: bytes, pause: float) -> AsyncIterator[str]:
    """Run an agent whose streams never end."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        origin = f"http://127.0.0.1:{writer.get_extra_info('sockname')[1]}"
        if head.startswith(b"GET"):
            body = json.dumps(card_at(f"{origin}/rpc", streaming=True)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + first)
        while True:
            writer.write(forever)
            await writer.drain()
            await asyncio.sleep(pause)

    async with served(meet) as port:
        yield f"http://127.0.0.1:{port}"


async def test_an_endless_stream_ends_with_the_call() -> None:
    async with (
        streaming(event(task("WORKING")), event({"statusUpdate": STATUS}), 0.01) as url,
        opened(url, limit=0.5) as client,
    ):
        reply = (await client.call("work", {"message": "x"})).last
        assert reply["structuredContent"]["state"] == "working"


@pytest.mark.parametrize(
    ("first", "forever", "why"),
    [
        (b"data: ", b"x" * (1 << 20), "exceeds"),
        (event(task("WORKING")), event({"artifactUpdate": ARTIFACT}), "too large"),
        (event(task("WORKING")), b": comment\n" * 100_000, "exceeds"),
        (event(task("WORKING")), event(task(id="t2")), "another task"),
        (b"", b"data: {}\n\n", "neither a result"),
    ],
    ids=["line", "artifact", "comments", "task", "garbage"],
)
async def test_an_endless_stream_is_bounded(first: bytes, forever: bytes, why: str) -> None:
    async with streaming(first, forever, 0) as url, opened(url) as client:
        error = (await client.call("work", {"message": "x"})).error
        assert isinstance(error, UpstreamInvalidError)
        assert why in error.reason


async def test_a_call_whose_task_cannot_be_polled_was_sent() -> None:
    received: list[bytes] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        received.append(head.partition(b" ")[0])
        origin = f"http://127.0.0.1:{writer.get_extra_info('sockname')[1]}"
        body = json.dumps(card_at(f"{origin}/rpc")).encode()
        if head.startswith(b"POST"):
            server.close()  # further connections are refused
            body = json.dumps({"id": 1, "result": task("WORKING")}).encode()
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(f"http://127.0.0.1:{port}") as client:
        error = (await client.call("work", {"message": "x"})).error
        assert "sent" not in error.data
        assert client.outcome.charge == 5
        assert received.count(b"POST") == 1


async def test_a_silent_stream_ends_with_the_call() -> None:
    async with streaming(b"", b": \n", 0.05) as url, opened(url, limit=0.5) as client:
        error = (await client.call("work", {"message": "x"})).error
        assert error.code == "upstream_timeout"
