"""A server whose shared account nobody has connected: tried as soon as somebody has."""

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
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_executor.main import build
from toolbus_executor.servers import supervisor as keeper


class Oauth:
    """The service that has tokens, once there is an account."""

    def __init__(self, settings: Settings) -> None:
        self.service = Service("oauth", settings)
        self.connected = False

        @self.service.answer_query(UpstreamTokenQuery)
        async def token(_asked: UpstreamTokenQuery) -> UpstreamTokenReply:
            if self.connected:
                return UpstreamTokenReply(token="of-everybody", ends=time() + 3600)
            return UpstreamTokenReply(reason="Nobody has connected an account.")

    def connect(self) -> None:
        """An account is there, and said to be."""
        self.connected = True
        about = {"server": "wiki", "user": "", "customer": "default"}
        self.service.events.publish(ConnectionCreated(id="made", at=time(), **about))


@pytest.fixture
def shown() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the tokens it was shown; it refuses every one."""
    tokens: list[str] = []

    def told(request: Request) -> Response:
        tokens.append(request.headers.get("authorization", ""))
        return Response(401)

    with answering(told) as port:
        yield f"http://127.0.0.1:{port}/mcp", tokens


@pytest.fixture
async def oauth(
    settings: Settings,
    operator: Bus,
    shown: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Oauth]:
    """Beside an executor that rests for an hour before it tries again."""
    monkeypatch.setattr(keeper, "FIRST_PAUSE", 3600.0)
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)
    wiki = Server.model_validate({"url": shown[0], "oauth": {}})
    config = await operator.bucket(CONFIG)
    await config.put(
        "configuration", Configuration(servers={"wiki": wiki}).model_dump_json().encode()
    )
    made = Oauth(settings)
    async with made.service.running(), build(LocalTransport()).running():
        yield made


async def test_a_server_is_tried_as_soon_as_its_shared_account_is_connected(
    oauth: Oauth, operator: Bus, shown: tuple[str, list[str]]
) -> None:
    async def refused() -> bool:
        reply = await RequestReply(OPERATOR, operator).request(ServersQuery(), ServersReply)
        return any("Nobody" in row["last_failure"] for row in reply.servers)

    await until_async(refused, "the reason why it cannot be met")
    oauth.connect()
    await until(lambda: "Bearer of-everybody" in shown[1], "the server, shown its token")
