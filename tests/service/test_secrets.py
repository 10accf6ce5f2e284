"""A server's credentials by reference: the executor reads them, and once more when they changed."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.network.json_server import Request, Response, answering
from harness.waits import until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import ServersQuery, ServersReply
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG
from toolbus_common.settings import Settings
from toolbus_executor.main import build

SCHEMA = {"data": {"__schema": {"queryType": {"name": "Query"}, "types": [
    {"kind": "OBJECT", "name": "Query", "fields": []}]}}}  # fmt: skip


class Api:
    """A GraphQL API of nothing; `tokens` are what it was shown, in order."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.url = ""

    def told(self, request: Request) -> Response:
        self.tokens.append(request.headers.get("authorization", ""))
        return Response(body=SCHEMA, headers={"content-type": "application/json"})


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    with answering(made.told) as port:
        made.url = f"http://127.0.0.1:{port}/graphql"
        yield made


@pytest.fixture
def begin(settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch) -> Any:
    @asynccontextmanager
    async def begun(server: Server) -> AsyncIterator[None]:
        monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
        monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
        monkeypatch.setenv("TOOLBUS_SECRET_SECONDS", "0.1")
        config = await operator.bucket(CONFIG)
        result = Configuration(servers={"shop": server}).model_dump_json().encode()
        await config.put("configuration", result)
        async with build(LocalTransport()).running():
            yield

    return begun


async def test_a_server_is_reached_with_what_its_reference_stands_for_and_anew_when_that_changed(
    api: Api, begin: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "token"
    kept.write_text("first-canary\n")
    headers = {"Authorization": f"Bearer ${{file:{kept}}}"}
    async with begin(Server(graphql=api.url, headers=headers, probe=0)):

        async def shown(token: str) -> bool:
            return f"Bearer {token}" in api.tokens

        await until_async(lambda: shown("first-canary"), "the first token")
        kept.write_text("second-canary\n")
        await until_async(lambda: shown("second-canary"), "the second token")
    assert "canary" not in caplog.text


async def test_a_server_whose_secret_cannot_be_had_says_which_and_is_reached_once_it_is_there(
    api: Api, begin: Any, operator: Bus, tmp_path: Path
) -> None:
    kept = tmp_path / "token"
    headers = {"Authorization": f"${{file:{kept}}}"}
    async with begin(Server(graphql=api.url, headers=headers, probe=0)):

        async def named() -> bool:
            reply = await RequestReply(OPERATOR, operator).request(ServersQuery(), ServersReply)
            return any(str(kept) in row["last_failure"] for row in reply.servers)

        await until_async(named, "the file's name in the server's status")
        assert api.tokens == []
        kept.write_text("there")

        async def reached() -> bool:
            return "there" in api.tokens

        await until_async(reached, "the token")
