"""A server whose shared account is not connected yet: retried as soon as it is."""

from collections.abc import AsyncIterator, Iterator
from time import time

import pytest

from harness.network.json_server import Request, Response, answering
from harness.waits import until, until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import (
    ConnectionCreated,
    ServersQuery,
    ServersReply,
    UpstreamTokenQuery,
    UpstreamTokenReply,
)
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_executor.main import build
from toolbus_executor.servers import supervisor as keeper


class Oauth:
    """An oauth service that has tokens once an account is connected."""

    def __init__(self, settings: Settings) -> None:
        self.service = Service("oauth", settings)
        self.connected = False

        @self.service.answer_query(UpstreamTokenQuery)
        async def token(_query: UpstreamTokenQuery) -> UpstreamTokenReply:
            if self.connected:
                return UpstreamTokenReply(token="of-everybody", ends=time() + 3600)
            return UpstreamTokenReply(reason="Nobody has connected an account.")

    def connect(self) -> None:
        """Connect the account, and publish the event."""
        self.connected = True
        about = {"server": "wiki", "user": "", "customer": "default"}
        self.service.events.publish(ConnectionCreated(id="made", at=time(), **about))


@pytest.fixture
def rejecting_server() -> Iterator[tuple[str, list[str]]]:
    """Serve an address that rejects every token, and collect the tokens it receives."""
    tokens: list[str] = []

    def reject(request: Request) -> Response:
        tokens.append(request.headers.get("authorization", ""))
        return Response(401)

    with answering(reject) as port:
        yield f"http://127.0.0.1:{port}/mcp", tokens


@pytest.fixture
async def oauth(
    settings: Settings,
    operator: Bus,
    rejecting_server: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Oauth]:
    """Run oauth with an executor that waits an hour before its next attempt."""
    monkeypatch.setattr(keeper, "FIRST_PAUSE", 3600.0)
    wiki = Server.model_validate({"url": rejecting_server[0], "oauth": {}})
    config = await operator.bucket(CONFIG)
    await config.put(
        "configuration", Configuration(servers={"wiki": wiki}).model_dump_json().encode()
    )
    oauth = Oauth(settings)
    async with oauth.service.running(), build(ProcessContext()).running():
        yield oauth


async def test_a_server_is_retried_as_soon_as_its_shared_account_is_connected(
    oauth: Oauth, operator: Bus, rejecting_server: tuple[str, list[str]]
) -> None:
    async def refused() -> bool:
        reply = await RequestReply(OPERATOR, operator).request(ServersQuery(), ServersReply)
        return any("Nobody" in row["last_failure"] for row in reply.servers)

    await until_async(refused, "the reason of the failed connection")
    oauth.connect()
    await until(lambda: "Bearer of-everybody" in rejecting_server[1], "the token at the server")
