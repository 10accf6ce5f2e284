"""Server credentials by reference: read by the executor, and again after a change."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.network.json_server import Request, Response, answering
from harness.waits import until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import ServersQuery, ServersReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_executor.main import build

SCHEMA = {"data": {"__schema": {"queryType": {"name": "Query"}, "types": [
    {"kind": "OBJECT", "name": "Query", "fields": []}]}}}  # fmt: skip


class Api:
    """A GraphQL API without fields; `tokens` are the received ones, in order."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.url = ""

    def answer(self, request: Request) -> Response:
        self.tokens.append(request.headers.get("authorization", ""))
        return Response(body=SCHEMA, headers={"content-type": "application/json"})


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with answering(api.answer) as port:
        api.url = f"http://127.0.0.1:{port}/graphql"
        yield api


@pytest.fixture
def start_executor(operator: Bus, monkeypatch: pytest.MonkeyPatch) -> Any:
    @asynccontextmanager
    async def start(server: Server) -> AsyncIterator[None]:
        monkeypatch.setenv("TOOLBUS_SECRET_SECONDS", "0.1")
        config = await operator.bucket(CONFIG)
        result = Configuration(servers={"shop": server}).model_dump_json().encode()
        await config.put("configuration", result)
        async with build(ProcessContext()).running():
            yield

    return start


async def test_a_referenced_secret_is_used_and_read_again_after_a_change(
    api: Api, start_executor: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("first-canary\n")
    headers = {"Authorization": f"Bearer ${{file:{file}}}"}
    async with start_executor(Server(graphql=api.url, headers=headers, probe=0)):

        async def is_used(token: str) -> bool:
            return f"Bearer {token}" in api.tokens

        await until_async(lambda: is_used("first-canary"), "the first token")
        file.write_text("second-canary\n")
        await until_async(lambda: is_used("second-canary"), "the second token")
    assert "canary" not in caplog.text


async def test_a_missing_secret_is_named_and_used_once_it_exists(
    api: Api, start_executor: Any, operator: Bus, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    headers = {"Authorization": f"${{file:{file}}}"}
    async with start_executor(Server(graphql=api.url, headers=headers, probe=0)):

        async def named() -> bool:
            reply = await RequestReply(OPERATOR, operator).request(ServersQuery(), ServersReply)
            return any(str(file) in row["last_failure"] for row in reply.servers)

        await until_async(named, "the file's name in the server's status")
        assert api.tokens == []
        file.write_text("there")

        async def reached() -> bool:
            return "there" in api.tokens

        await until_async(reached, "the token")
