"""Policy at work on the session's bus and Valkey, for the tests of approvals; and marks."""

import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import pytest

from harness.engines.bus_reset import connect_as_tester
from harness.engines.nats_server import NatsAt
from harness.oauth.protected_processes import OAuthServer, Resource
from harness.programs.marked_processes import marked
from harness.services.authorization_service import STAFF, Server, serving
from harness.services.oauth_connections import DOCUMENT, ConnectFlow, executor_connection
from harness.services.policy_replicas import PolicyReplicas, declared, running_policy
from harness.waits import PATIENCE
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import LEASES
from toolbus_common.settings import Settings

LOOPBACK = "127.0.0.0/8 ::1"
Begin = AbstractAsyncContextManager[PolicyReplicas]


@pytest.fixture(autouse=True)
def lists_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are operators who list this machine's own addresses."""
    monkeypatch.setenv("TOOLBUS_EGRESS_ALLOW", LOOPBACK)


@pytest.fixture
def mark() -> Iterator[str]:
    """What marks the processes of one test; whatever is left of them is ended."""
    made = f"mark-{uuid.uuid4().hex}"
    yield made
    for pid in marked(made):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def lasting_leases(nats_server: NatsAt, provisioned_bus: None) -> None:  # noqa: ARG001
    """Leases outlive a machine that stands still for a while: no server moves in these tests.

    A bucket that was written to, as leases are by any executor with a process, is made anew for
    the next test.
    """
    async with connect_as_tester(nats_server) as tester:
        stream = tester.client.jetstream()
        config = (await stream.stream_info(f"KV_{LEASES}")).config
        config.max_age = PATIENCE
        await stream.update_stream(config)


@pytest.fixture
def docs() -> Iterator[Resource]:
    """What a server that wants OAuth says of itself."""
    with Resource().serving() as made:
        yield made


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """An authorization server that servers name, in a process of its own."""
    with OAuthServer(tmp_path_factory.mktemp("oauth")).running() as made:
        yield made


@pytest.fixture
def far(away: OAuthServer) -> OAuthServer:
    """The same, as it was at first."""
    return away.as_ever()


@pytest.fixture
async def asking(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ConnectFlow]:
    """Oauth as a client of others, with an account of ann's."""
    own = {"OAUTH_CLIENT_DOCUMENT": DOCUMENT}
    async with executor_connection(settings, operator, monkeypatch, **own) as parts:
        made = ConnectFlow(*parts)
        await made.server.account()
        yield made


@pytest.fixture
async def server(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    """Oauth at work, with the rule `staff` and an account of ann's."""
    async with serving(settings, operator, monkeypatch) as made:
        await made.declare(**STAFF)
        await made.account()
        yield made


@pytest.fixture
def begin(
    settings: Settings, operator: Bus, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """How to put policy to work, with settings of its own."""

    def begun(replicas: int = 2, **told: str) -> Begin:
        for name, value in {
            "STATE_DIR": str(settings.state_dir),
            "NATS_URL": settings.nats_url,
            "REDIS_URL": valkey_url,
            "REDIS_TIMEOUT": "5",  # a busy machine's Valkey is not one that is away
            **told,
        }.items():
            monkeypatch.setenv(f"TOOLBUS_{name}", value)
        return running_policy(settings, operator, declared(), replicas)

    return begun


@pytest.fixture
async def at_work(begin: Any) -> AsyncIterator[PolicyReplicas]:
    async with begin() as made:
        yield made
