"""The README's first steps: start, call, denial, audit rows; then every process is killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


@pytest.fixture(scope="module", params=["fused", "separate"])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launched]:
    """Run `toolbus up` with no configuration: the demo."""
    options = ["--separate"] if request.param == "separate" else []
    gateway = Launched(tmp_path_factory.mktemp("demo"), *options)
    with gateway.running():
        gateway.until_listed(gateway.client(gateway.ready["key"]), "clock__now", "notes__add")
        yield gateway


def commands_of_the_readme(key: str) -> list[list[str]]:
    """Return the README's commands for the demo, with this key. Those of models follow."""
    lines = re.findall(r"^\.venv/bin/toolbus (.*?)\s*(?:#.*)?$", README, re.MULTILINE)
    words = [re.findall(r"'([^']*)'|(\S+)", line) for line in lines]
    shown = [[quoted or plain.replace("tbk_demo_…", key) for quoted, plain in row] for row in words]
    return shown[:3]


def test_the_readmes_commands_give_a_call_a_denial_and_their_rows(demo: Launched) -> None:
    call, denied, tail = commands_of_the_readme(demo.ready["key"])
    assert tail == ["audit", "tail"]
    message = demo.toolbus(*call)
    assert message.returncode == 0, message
    assert "Oslo" in message.stdout or re.search(r"\d\d:\d\d", message.stdout)
    refused = demo.toolbus(*denied)
    assert refused.returncode != 0
    assert "Unknown tool: notes__clear" in refused.stdout + refused.stderr
    demo.eventual_events("tool = 'now'", "call.allowed", "call.completed")
    demo.eventual_events("tool = 'clear'", "call.denied")


def test_the_readmes_python_client_works(demo: Launched, tmp_path: Path) -> None:
    program, _models = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program = program.replace("tbk_…", demo.ready["key"])
    file = tmp_path / "client.py"
    file.write_text(program.replace("http://127.0.0.1:8080/mcp", demo.ready["endpoint"]))
    result = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "content" in result.stdout


def test_a_killed_process_is_started_again(demo: Launched) -> None:
    client = demo.client(demo.ready["key"])
    for pid in demo.ready["pids"].values():
        os.kill(pid, signal.SIGKILL)

    def answers() -> bool:
        try:
            return not client.call("clock__now").code
        except (OSError, HTTPException):
            return False

    until_blocking(answers, "a call is answered again")
    demo.eventual_rows("SELECT count() AS n FROM events")
