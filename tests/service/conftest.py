"""Fixtures of the service tests: settings, authorization servers, and policy on a real bus."""

import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from harness.apis.model_provider import ModelProvider
from harness.audit.events import bus_of
from harness.engines.bus_reset import connect_as_tester
from harness.engines.migrated_tables import migrated
from harness.engines.nats_server import NatsAt
from harness.oauth.protected_processes import OAuthServer, Resource
from harness.programs.marked_processes import marked
from harness.services import model_edge as models
from harness.services.authorization_service import STAFF, Server, serving
from harness.services.ledger_state import MemoryGenerations
from harness.services.model_gateway import ModelGateway
from harness.services.oauth_connections import DOCUMENT, ConnectFlow, executor_connection
from harness.services.policy_replicas import PolicyReplicas, declared, running_policy
from harness.upstreams.large_result_server import LargeResultServer
from harness.waits import PATIENCE
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import LEASES
from toolbus_common.settings import Settings
from toolbus_policy.ledger.ledger import Ledger

LOOPBACK = "127.0.0.0/8 ::1"
Begin = AbstractAsyncContextManager[PolicyReplicas]


@pytest.fixture(autouse=True)
def lists_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow this machine's own addresses, as an operator may."""
    monkeypatch.setenv("TOOLBUS_EGRESS_ALLOW", LOOPBACK)


@pytest.fixture
def mark() -> Iterator[str]:
    """Yield a mark for the processes of one test, and kill those that are left."""
    mark_ = f"mark-{uuid.uuid4().hex}"
    yield mark_
    for pid in marked(mark_):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def lasting_leases(nats_server: NatsAt, provisioned_bus: None) -> None:  # noqa: ARG001
    """Let leases outlast a paused machine, so that no server moves in these tests.

    A bucket that was written to, as leases are by any executor with a process, is created again for
    the next test.
    """
    async with connect_as_tester(nats_server) as tester:
        stream = tester.client.jetstream()
        config = (await stream.stream_info(f"KV_{LEASES}")).config
        config.max_age = PATIENCE
        await stream.update_stream(config)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ClickHouse]:
    """Open an empty store of events, with its tables."""
    store = ClickHouse(AuditSettings(state_dir=migrated(tmp_path)))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def ledger(valkey_url: str) -> AsyncIterator[Ledger]:
    """Open a ledger whose generations are kept in memory."""
    ledger = Ledger(valkey_url, MemoryGenerations(), seconds=30.0)
    yield ledger
    await ledger.close()


@pytest.fixture
async def result_server() -> AsyncIterator[LargeResultServer]:
    """Serve large results and results with lifetimes."""
    server = LargeResultServer()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
def docs() -> Iterator[Resource]:
    """Serve the resource metadata of a server that requires OAuth."""
    with Resource().serving() as resource:
        yield resource


@pytest.fixture(scope="module")
def oauth_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    """Run an authorization server in a process of its own."""
    with OAuthServer(tmp_path_factory.mktemp("oauth")).running() as server:
        yield server


@pytest.fixture
def oauth_server(oauth_process: OAuthServer) -> OAuthServer:
    """Return the authorization server, reset to its first state."""
    return oauth_process.as_ever()


@pytest.fixture
async def flow(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ConnectFlow]:
    """Run oauth as a client of other authorization servers, with an account of ann's."""
    own = {"OAUTH_CLIENT_DOCUMENT": DOCUMENT}
    async with executor_connection(settings, operator, monkeypatch, **own) as parts:
        flow = ConnectFlow(*parts)
        await flow.server.account()
        yield flow


@pytest.fixture
async def server(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    """Run oauth with the rule `staff` and an account of ann's."""
    async with serving(settings, operator, monkeypatch) as server:
        await server.declare(**STAFF)
        await server.account()
        yield server


@pytest.fixture
async def gateway(
    settings: Settings, operator: Bus, nats_server: NatsAt
) -> AsyncIterator[ModelGateway]:
    """Connect to the bus as policy, and receive all events."""
    async with bus_of("policy", settings) as policy, connect_as_tester(nats_server) as tester:
        gateway = ModelGateway(operator, policy)
        await gateway.listen(tester)
        yield gateway


@pytest.fixture
async def model() -> AsyncIterator[ModelProvider]:
    """Run a scripted provider."""
    async with ModelProvider().running() as provider:
        yield provider


@pytest.fixture
def start_policy(
    settings: Settings, operator: Bus, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Return a function that runs policy with the given settings."""

    def start(replicas: int = 2, **environment: str) -> Begin:
        for name, value in {
            "STATE_DIR": str(settings.state_dir),
            "NATS_URL": settings.nats_url,
            "REDIS_URL": valkey_url,
            "REDIS_TIMEOUT": "5",  # a busy machine's Valkey may answer slowly
            **environment,
        }.items():
            monkeypatch.setenv(f"TOOLBUS_{name}", value)
        return running_policy(settings, operator, declared(), replicas)

    return start


@pytest.fixture
async def policy(start_policy: Any) -> AsyncIterator[PolicyReplicas]:
    async with start_policy() as policy:
        yield policy


@pytest.fixture
def model_edge(settings: Settings) -> models.OpenEdge:
    """Return a function that runs the edge for models."""
    return lambda **providers: models.model_edge(settings, fused=True, **providers)


@pytest.fixture(params=[False, True], ids=["separate", "fused"])
def model_edge_on_both(settings: Settings, request: pytest.FixtureRequest) -> models.OpenEdge:
    """Return a function that runs the edge, with its services separate or in one process."""
    return lambda **providers: models.model_edge(settings, fused=request.param, **providers)
