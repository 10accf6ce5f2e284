"""MCP servers in containers, with a real engine: their user, what they may write, and orphans.

An image has a digest only in a registry, so the tests run a registry on this machine.
TOOLBUS_TEST_KILLS is the number of kills (100 for the long form).
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.packages.debian import BUSYBOX, DOCKER_REGISTRY
from harness.waits import until_blocking
from toolbus_cli.launcher.ports import free
from toolbus_common.config import Server
from toolbus_executor.isolation.container import container_command
from toolbus_executor.settings import Settings

KILLS = int(os.environ.get("TOOLBUS_TEST_KILLS", "10"))
# It answers every line with its user and what it could write, and it ignores the end of its input.
PROGRAM = r"""
while read -r line; do
  touch /tmp/x && writes="/tmp"
  touch /x 2>/dev/null && writes="$writes /"
  echo "$(id -u):$(id -g) $HOME $writes"
done
sleep 1000000
"""


def docker(*words: str) -> str:
    """Run a command of the engine, and return what it printed."""
    result = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory, port = tmp_path_factory.mktemp("registry"), free()
    configuration = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (directory / "registry.yaml").write_text(json.dumps(configuration))
    words = [DOCKER_REGISTRY.path(), "serve", str(directory / "registry.yaml")]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            until_blocking(lambda: "listening on" in (directory / "log").read_text(), "it listens")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def image(registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build an image whose user is root, and return its name with the digest."""
    directory = tmp_path_factory.mktemp("image")
    shutil.copy(BUSYBOX.path(), directory / "busybox")
    (directory / "program").write_text(PROGRAM)
    (directory / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/touch\nCOPY busybox /bin/id\n"
        "COPY busybox /bin/sleep\nCOPY program /program\n"
        'ENTRYPOINT ["/bin/sh", "/program"]\n'
    )
    name = f"{registry}/toolbus-test-server"
    docker("build", "--tag", name, str(directory))
    docker("push", name)
    return docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", name)


class Boxed:
    """One server in its container, as executor starts it."""

    def __init__(self, directory: Path, image: str, **container: Any) -> None:
        declared = Server(container={"image": image, **container}, network="none")
        self.command = container_command("boxed", declared, Settings(state_dir=directory))
        self.name = self.command[self.command.index("--name") + 1]
        self._process: subprocess.Popen[str] | None = None

    def answer(self) -> str:
        """Start the server, and return its answer to one line."""
        self._process = process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("{}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def kill(self) -> None:
        """Kill the engine's command, as if executor's machine had killed both."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def containers(self) -> int:
        """Return the number of containers of this server, in any state."""
        return len(docker("ps", "--all", "--quiet", "--filter", f"name={self.name}").splitlines())

    def remove(self) -> None:
        """Remove the last container."""
        docker("rm", "--force", self.name)


@pytest.mark.parametrize(
    ("container", "user"),
    [({}, "65532:65532"), ({"user": "1000:2000"}, "1000:2000"), ({"user": "0:0"}, "0:0")],
)
def test_a_server_runs_as_the_configured_user_and_writes_only_to_tmp(
    image: str, tmp_path: Path, container: dict[str, str], user: str
) -> None:
    boxed = Boxed(tmp_path, image, **container)
    try:
        assert boxed.answer() == f"{user} /tmp /tmp"  # its user, home, and where it could write
    finally:
        boxed.kill()
        boxed.remove()


def test_kills_leave_no_second_container(image: str, tmp_path: Path) -> None:
    boxed = Boxed(tmp_path, image)
    try:
        for _ in range(KILLS):
            assert boxed.answer().startswith("65532:65532")
            assert boxed.containers() == 1
            boxed.kill()
    finally:
        boxed.remove()
    assert boxed.containers() == 0
