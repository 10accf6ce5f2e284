"""Fixtures for every test: real engines, a new state directory, an operator's bus.

`TOOLBUS_TEST_NATS_URL` and `TOOLBUS_TEST_REDIS_URL` name external servers to use; the tests empty
them, so only one worker may use them (`make test WORKERS=0`). `TOOLBUS_TEST_CONTAINERS=1` starts
both in containers, and requires the tests of containers.
"""

import gc
import logging
import os
import resource
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from harness.engines import containers, migrated_tables
from harness.engines.bus_reset import connect_as_tester, reset_bus
from harness.engines.nats_server import NatsAt, NatsServer
from harness.engines.valkey_server import ValkeyServer
from harness.gateway import cluster
from harness.gateway.launched_gateway import Launched
from harness.log_tails import log_tails
from harness.waits import PATIENCE
from harness.worker_groups import group_of, position
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.settings import Settings

# Every run tries the same examples without a deadline, so a failure does not depend on the machine.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")
cluster.Process.forks = True
Launched.forks = True
# Reserved ports stay open until the end of the run, and the usual limit is 1024 descriptors.
_, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _most))


@pytest.fixture(scope="session", autouse=True)
def _migrated_tables(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all workers of a run copy the same tables of ClickHouse."""
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    migrated_tables.share((base.parent if is_worker else base) / "migrated-tables")


@pytest.fixture(autouse=True)
def _kept_log_level() -> Iterator[None]:
    """Restore the level that a command, run in this process, sets for its own process."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Send tests that share a gateway to one worker; groups are read before any list is sorted."""
    item.add_marker(pytest.mark.xdist_group(group_of(item)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tests first, so that no worker waits for one that started last."""
    items.sort(key=position)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude modules and collected tests from garbage collection, which would scan them all."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a test whose container cannot run, unless containers are required."""
    marker = item.get_closest_marker("containers")
    if marker is not None and (reason := containers.missing(*marker.args)):
        pytest.skip(f"{containers.LEFT_OUT}{reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the recent logs to the report of a failed test."""
    report = yield
    if report.failed and call.excinfo is not None and hasattr(item.config, "_tmp_path_factory"):
        tails = log_tails(item.config._tmp_path_factory.getbasetemp())
        report.sections.append(("Ends of recent logs", tails))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests with containers were left out, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if line := containers.summary([str(each.longrepr[2]) for each in skipped]):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsAt]:
    """Return the session's NATS server; `settings` and `operator` reset it for every test."""
    if given := os.environ.get("TOOLBUS_TEST_NATS_URL"):
        yield NatsAt(given, None)
        return
    if containers.requested():
        directory = tmp_path_factory.mktemp("nats")
        with containers.nats_container(directory) as url:
            yield NatsAt(url, directory / "nkeys")
        return
    with NatsServer(tmp_path_factory.mktemp("nats")).running() as server:
        yield server.at


@pytest.fixture
def state_dir(tmp_path: Path, nats_server: NatsAt) -> Path:
    """Return the test's own state directory with every service's seed."""
    directory = tmp_path / "state"
    directory.mkdir()
    if nats_server.seeds is not None:
        shutil.copytree(nats_server.seeds, directory / "nkeys")
    return directory


@pytest.fixture
async def provisioned_bus(nats_server: NatsAt) -> None:
    """Provision empty streams and buckets."""
    async with connect_as_tester(nats_server) as tester:
        await reset_bus(tester, nats_server.streams)


@pytest.fixture
def settings(
    state_dir: Path,
    nats_server: NatsAt,
    provisioned_bus: None,  # noqa: ARG001 - the services find their streams
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """Return the common settings of services on the provisioned bus; the environment has them."""
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", nats_server.url)
    monkeypatch.setenv("TOOLBUS_DRAIN_SECONDS", "5")
    return Settings()


@pytest.fixture
async def operator(settings: Settings) -> AsyncIterator[Bus]:
    """Return an operator's connection to the provisioned bus."""
    seed = settings.seed(OPERATOR)
    bus = Bus(OPERATOR, settings.nats_url, seed.get_secret_value() if seed else None)
    await bus.open()
    yield bus
    await bus.close()


@pytest.fixture(scope="session")
def valkey_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the session's Valkey server."""
    if given := os.environ.get("TOOLBUS_TEST_REDIS_URL"):
        yield given
        return
    if containers.requested():
        with containers.valkey_container() as url:
            yield url
        return
    with ValkeyServer(tmp_path_factory.mktemp("valkey")).running() as server:
        yield server.url


@pytest.fixture
def valkey_url(valkey_server_url: str) -> str:
    """Return the URL of an empty Valkey."""
    with redis.Redis.from_url(valkey_server_url, socket_timeout=PATIENCE) as client:
        client.flushall()
    return valkey_server_url


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """Return the test's own running NATS server, not provisioned."""
    with NatsServer(tmp_path / "own-nats").running() as server:
        yield server


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Return the test's own running Valkey."""
    with ValkeyServer(tmp_path / "own-valkey").running() as server:
        yield server


@pytest.fixture
def no_toolbus_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove Toolbus's variables from the environment."""
    for name in [name for name in os.environ if name.startswith("TOOLBUS_")]:
        monkeypatch.delenv(name)
