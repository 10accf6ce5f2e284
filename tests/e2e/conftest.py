"""A whole gateway in front of real servers, with separate and with fused services."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.gateway.cluster import Upstream
from harness.gateway.everything_gateway import (
    CALL_SECONDS,
    EverythingOverHttp,
    Gateway,
    configuration,
)
from harness.gateway.family_gateway import FamilyGateway, replicated
from harness.gateway.launched_gateway import Launched
from harness.packages import everything_server


@pytest.fixture(scope="session")
def everything_program(pytestconfig: pytest.Config) -> list[str]:
    """Return the command that runs server-everything."""
    assert pytestconfig.cache is not None
    return everything_server.install(pytestconfig.cache.mkdir("node"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a git repository with one commit."""
    directory = tmp_path_factory.mktemp("repository")
    git = ["git", "-c", "user.name=E", "-c", "user.email=e@example.org", "-C", str(directory)]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    (directory / "file").write_text("text\n")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "The first commit"], check=True)
    return directory


@pytest.fixture(scope="session", params=["separate", "fused"])
def gateway(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    everything_program: list[str],
    repository: Path,
) -> Iterator[Gateway]:
    """Run Toolbus in front of five servers, with separate and with fused services."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    over_http = EverythingOverHttp(tmp_path_factory.mktemp("web"), everything_program)
    options = ["--separate"] if request.param == "separate" else []
    directory = tmp_path_factory.mktemp(request.param)
    launched = Launched(directory, *options, TOOLBUS_CALL_TIMEOUT=str(CALL_SECONDS))
    document = configuration(echo, over_http, everything_program, repository)
    with echo.running(), over_http.running(), launched.running(document):
        gateway = Gateway(launched, echo)
        tools = ("echo__say", "short__say", "time__convert_time", "git__git_log")
        launched.until_listed(gateway.client(), *tools, "every__echo", "web__echo")
        yield gateway


@pytest.fixture(scope="module", params=["separate", "fused"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FamilyGateway]:
    """Run Toolbus in front of two servers; separate services have two replicas each."""
    fused = request.param == "fused"
    with replicated(tmp_path_factory.mktemp(request.param), fused=fused) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """Run the server of the calls."""
    with Upstream(tmp_path_factory.mktemp("upstream")).running() as server:
        yield server
