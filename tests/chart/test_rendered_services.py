"""The containers of the chart run with the files that the page of Kubernetes puts into Secrets."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from harness.charts.helm import ROOT, helm, parsed, pods
from harness.charts.rendered_container import RenderedContainer, Secrets
from harness.clients.mcp_client import Client
from harness.engines.engine import Engine
from harness.engines.valkey_server import ValkeyServer
from harness.waits import until_blocking
from toolbus_cli.launcher.engines import nats_binary
from toolbus_common.service.names import SERVICES

PAGE = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
TOOL = "time__get_current_time"
CONFIGURATION = """
servers:
  time: {command: [mcp-server-time, --local-timezone, UTC]}
keys:
  bot: {tools: ["*"]}
"""


class GeneratedNats(Engine):
    """NATS with the keys and the configuration that the page's commands generate."""

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [str(nats_binary()), "--config", str(self.directory / "bus" / "nats.conf")]

    def generate(self) -> None:
        """Run the page's commands, with the address and directory of this server."""
        commands = block("toolbus nats-config")
        assert "--listen 0.0.0.0 --store-dir /data" in commands
        run(commands.replace("0.0.0.0", f"127.0.0.1 --port {self.port}").replace(
            "/data", str(self.directory / "data")), self.directory)  # fmt: skip


def block(beginning: str) -> str:
    """Return the commands of the page that begin with these words."""
    (found,) = [
        each
        for each in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
        if each.startswith(beginning)
    ]
    return str(found)


def run(commands: str, directory: Path, *, env: str = "") -> str:
    """Run commands of a shell; return their output."""
    path = f"PATH={Path(sys.executable).parent}:$PATH {env}"
    done = subprocess.run(
        ["bash", "-ec", f"export {path}\n{commands}"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def secrets_in(directory: Path) -> Secrets:
    """Return the Secrets that the page creates, with the files of a directory."""
    found: Secrets = {}
    for line in (
        block("kubectl create secret generic toolbus-operator").replace("\\\n", "").split("\n")
    ):
        if words := shlex.split(line):
            assert words[:4] == ["kubectl", "create", "secret", "generic"]
            files = [directory / each.removeprefix("--from-file=") for each in words[5:]]
            found[words[4]] = {each.name: each for each in files}
    return found


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratedNats]:
    server = GeneratedNats(tmp_path_factory.mktemp("nats"))
    server.generate()
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def containers(
    nats: GeneratedNats, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, RenderedContainer]]:
    directory = tmp_path_factory.mktemp("pods")
    with ExitStack() as final:
        valkey = ValkeyServer(directory / "valkey")
        valkey.start()
        final.callback(valkey.kill)
        values = {
            "publicUrl": "http://127.0.0.1:8080",
            "nats": {"url": f"nats://127.0.0.1:{nats.port}"},
            "valkey": {"url": valkey.url},
            "defaults": {"replicas": 1, "state": {"type": "persistentVolumeClaim"}},
        }
        (directory / "values.yaml").write_text(yaml.safe_dump(values))
        rendered = helm("template", directory / "values.yaml")
        assert rendered.returncode == 0, rendered.stderr
        secrets = secrets_in(nats.directory)
        found = {
            name: RenderedContainer(pod, secrets, directory)
            for name, pod in pods(parsed(rendered.stdout)).items()
        }
        job = found.pop("provision")
        job.start()
        assert job.wait() == 0, job.log.read_text()
        for each in found.values():
            each.start()
            final.callback(each.stop)
        yield found


def answers(url: str) -> bool:
    """Return whether a probe succeeds."""
    try:
        return Client(url, "").get(url).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_succeeds(
    probe: str, service: str, containers: dict[str, RenderedContainer]
) -> None:
    each = containers[service]
    until_blocking(lambda: answers(each.probe(probe)), each.log.read_text()[-3000:])


def test_a_call_is_answered_and_no_mounted_key_changes(
    containers: dict[str, RenderedContainer], nats: GeneratedNats
) -> None:
    keys = {name: each.mounted_keys() for name, each in containers.items()}
    first, second, *_ = block("mkdir -p operator").splitlines()
    run(f"{first}\n{second}", nats.directory)
    (nats.directory / "toolbus.yaml").write_text(CONFIGURATION)
    url = f"TOOLBUS_NATS_URL=nats://127.0.0.1:{nats.port}"
    apply = "toolbus apply -f toolbus.yaml --state-dir operator"
    assert apply in PAGE
    applied = json.loads(run(f"{apply} --yes --json", nats.directory, env=url))
    port = containers["ingress"].ports["http"]
    client = Client(f"http://127.0.0.1:{port}/mcp", applied["secrets"]["bot"])
    until_blocking(lambda: client.sees(TOOL), "the tools of the server")
    assert "UTC" in client.call(TOOL, {"timezone": "UTC"}).text
    checkpoints = containers["audit"].root / "evidence"
    until_blocking(lambda: list(checkpoints.glob("*.jsonl")), "a checkpoint of the log")
    assert {path.name for path in (containers["oauth"].root / "signing").iterdir()} == {
        "oauth-signing.json",
        "oauth-client.json",
        "oauth-identity.json",
    }
    assert {name: each.mounted_keys() for name, each in containers.items()} == keys
