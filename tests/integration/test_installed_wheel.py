"""The wheel in an environment of its own, without this repository and its development tools."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness.engines.engine import die_with_parent, own_port
from harness.packages import wheel_environment

PATIENCE = 120.0


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of commands of an environment with the wheel."""
    return wheel_environment.create(tmp_path_factory.mktemp("wheel"))


def outside(cwd: Path, **more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(cwd), **more}


def run(cwd: Path, *words: str | Path, **environment: str) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        env=outside(cwd, **environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_environment_has_no_package_that_only_tests_need(
    commands: Path, tmp_path: Path
) -> None:
    code = (
        "import importlib.util, toolbus_cli; print(toolbus_cli.__file__)\n"
        "print([n for n in ('pytest', 'moto', 'fastmcp', 'mypy') if importlib.util.find_spec(n)])"
    )
    where, unwanted = run(tmp_path, commands / "python", "-c", code).splitlines()
    assert Path(where).is_relative_to(commands.parent)
    assert unwanted == "[]"


def test_an_installed_gateway_answers_a_call(commands: Path, tmp_path: Path) -> None:
    assert "doctor" in run(tmp_path, commands / "toolbus", "--help")
    ready = tmp_path / "ready.json"
    words = [str(commands / "toolbus"), "up", "--port", str(own_port()), "--ready-file", str(ready)]
    with (tmp_path / "log").open("wb") as log:
        up = subprocess.Popen(
            words,
            cwd=tmp_path,
            env=outside(tmp_path),
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        try:
            printed = awaited(up, ready)
            called = run(
                tmp_path, commands / "toolbus", "call", "notes__add", '{"text": "hello"}',
                TOOLBUS_KEY=printed["key"], TOOLBUS_URL=printed["endpoint"],
            )  # fmt: skip
            assert called == "note 1 is stored\n"
        finally:
            up.send_signal(signal.SIGTERM)
            assert up.wait(PATIENCE) == 0


def awaited(up: subprocess.Popen[bytes], ready: Path) -> dict[str, Any]:
    """Wait for the file that `up` writes when it is ready; return its contents."""
    give_up = time.monotonic() + PATIENCE
    while not ready.exists():
        assert up.poll() is None, (ready.parent / "log").read_text()
        assert time.monotonic() < give_up, (ready.parent / "log").read_text()
        time.sleep(0.05)
    contents: dict[str, Any] = json.loads(ready.read_text())
    return contents
