"""The steps of docs/how-to/running-replicas.md: two of each service, on NATS and Valkey."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.clients.mcp_client import Client
from harness.engines.engine import die_with_parent, own_port
from harness.gateway.family_gateway import calling, start_session
from harness.waits import until_blocking
from toolbus_cli.launcher.engines import nats_binary, valkey_binary

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "running-replicas.md"
TOOL = "time__get_current_time"
DONE = "--step-done--"


class Shell:
    """One shell session, in which the page's steps are run one after another."""

    def __init__(self, directory: Path) -> None:
        programs = directory / "bin"
        programs.mkdir()
        (programs / "nats-server").symlink_to(nats_binary())
        (programs / "valkey-server").symlink_to(valkey_binary())
        self.ports = {name: own_port() for name in ("NATS_PORT", "VALKEY_PORT")}
        self.ports |= {name: own_port() for name in ("INGRESS_1", "INGRESS_2")}
        environment = {name: value for name, value in os.environ.items() if "TOOLBUS" not in name}
        path = f"{Path(sys.executable).parent}:{programs}:{environment['PATH']}"
        fields = {name: str(port) for name, port in self.ports.items()}
        self.cluster_dir = directory / "cluster"
        self._bash = subprocess.Popen(
            ["bash", "-e"],
            cwd=directory,
            env={**environment, **fields, "PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )

    def run(self, step: str) -> str:
        """Run a step and return its output; fail if one of its commands fails."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{step}\necho {DONE}\n")
        self._bash.stdin.flush()
        message = ""
        for line in self._bash.stdout:
            if line.strip() == DONE:
                return message
            message += line
        raise AssertionError(f"it failed:\n{step}\n{message}\n{self.logs()}")

    def logs(self) -> str:
        """Return the end of every process's log."""
        logs = sorted(self.cluster_dir.glob("*-*/log"))
        return "\n".join(f"{log.parent.name}: {log.read_text()[-800:]}" for log in logs)

    def close(self) -> None:
        """End what the steps started, if they did not."""
        for file in [*self.cluster_dir.glob("*/pid"), *self.cluster_dir.glob("*.pid")]:
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)
        self._bash.kill()
        with self._bash:  # which closes its pipes
            pass

    def client(self, number: int, key: str) -> Client:
        """Return a client of one ingress."""
        return Client(f"http://127.0.0.1:{self.ports[f'INGRESS_{number}']}/mcp", key)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.close()


def steps() -> list[str]:
    """Return the commands of each numbered section of the page."""
    found = re.findall(r"^## \d\. .*?^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 6
    return found


def test_the_pages_steps_run_two_of_each_service_and_one_may_be_killed(shell: Shell) -> None:
    keys, operator, services, calls, losing, end = steps()
    shell.run(keys)
    shell.run(operator)
    status = shell.run(services)
    for service in ("ingress", "policy", "executor", "codemode"):
        rows = re.findall(rf"^{service} +ready +(\d+)", status, re.MULTILINE)
        assert len(set(rows)) == 2, status
    message = shell.run(calls)
    assert message.count('"timezone"') >= 2, message
    name = TOOL.partition("__")[2]
    tail = calls.splitlines()[-1]
    until_blocking(lambda: shell.run(f"{tail}\n").count(name) >= 2, "audit has both calls")
    key = json.loads((shell.cluster_dir / "applied.json").read_text())["secrets"]["bot"]
    session = start_session(shell.client(1, key))
    call = calling(TOOL, 2, timezone="UTC")
    shared = shell.client(2, key).post(call, Mcp_Session_Id=session)
    assert "UTC" in shared.text, "the session of one ingress is good at the other"
    assert "UTC" in message
    assert '"timezone"' in shell.run(losing)
    for _ in range(5):
        assert "UTC" in shell.client(2, key).post(call, Mcp_Session_Id=session).text
    until_blocking(
        # The exit code is 1 while a replica starts.
        lambda: len(_ready(shell.run("toolbus status --state-dir operator || :"), "executor")) == 2,
        "the third executor takes the first one's place",
        90,
    )
    shell.run(end)
    until_blocking(
        lambda: not any(map(_runs, shell.cluster_dir.glob("*.pid"))), "the engines' end", 60
    )


def test_an_ingress_with_a_key_of_its_own_is_refused_and_named(shell: Shell) -> None:
    """This is why the page copies `client-state.key`."""
    keys, operator, services, *_ = steps()
    shell.run(keys)
    shell.run(operator)
    until_ready = "until toolbus status --state-dir operator > status.txt; do sleep 1; done"
    assert until_ready in services
    unequal = services.replace("give ingress $number client-state.key", "give ingress $number")
    shell.run(unequal.replace(until_ready, "touch status.txt"))
    refused = "has another 'client_state' key than the installation"
    for command in ("status", "doctor"):
        line = f"toolbus {command} --json --state-dir operator || true"
        until_blocking(lambda line=line: refused in shell.run(line), f"{command} names it")  # type: ignore[misc]


def _ready(status: str, service: str) -> list[str]:
    return re.findall(rf"^{service} +ready +(\d+)", status, re.MULTILINE)


def _runs(file: Path) -> bool:
    try:
        text = Path(f"/proc/{int(file.read_text())}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
