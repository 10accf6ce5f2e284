"""The projects that `toolbus plugins new` writes: their own tests, and their programs, run here."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from toolbus_cli.commands.guards.plugins import Language, new
from toolbus_common.contracts import HookReply
from toolbus_common.plugins.answers import decoded

TESTS = {
    Language.PYTHON: [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
    Language.GO: ["go", "test", "./..."],
    Language.NODE: ["node", "--test"],
}


@pytest.fixture(params=[*Language])
def language(request: pytest.FixtureRequest) -> Language:
    """Return each language."""
    return Language(request.param)


@pytest.fixture
def project(tmp_path: Path, language: Language) -> Path:
    """Return a new project in a language."""
    target = tmp_path / "limit-it"
    new("limit-it", lang=language, directory=target)
    return target


@contextmanager
def program(project: Path, command: list[str], **settings: str) -> Iterator[str]:
    """Run a project's program on a free port, and return its URL."""
    environment = {**os.environ, "LISTEN": "127.0.0.1:0", **settings}
    with subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield f"http://{line.removeprefix('listening on ').strip()}/"
        finally:
            process.kill()


def ask(url: str, **arguments: Any) -> HookReply:
    """Return the answer of a webhook about a call."""
    request = {
        "point": "after_decision", "plugin": "limit-it", "call_id": "c-1", "customer": "acme",
        "key": "bot", "server": "bank", "tool": "pay", "deadline": 0, "has_content": True,
        "content": {"arguments": arguments},
    }  # fmt: skip
    with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=60) as response:
        return decoded(response.read())


def test_the_tests_of_a_new_project_pass(project: Path, language: Language) -> None:
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
    done = subprocess.run(
        TESTS[language], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_in_go_refuses_what_exceeds_the_budget_of_a_day(tmp_path: Path) -> None:
    project = tmp_path / "limit-it"
    new("limit-it", lang=Language.GO, directory=project)
    binary = tmp_path / "program"
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=project, check=True)
    with program(project, [str(binary)], MOST="10") as url:
        verdicts = [ask(url, amount=amount).verdict for amount in (7, 4, 3)]
        assert verdicts == ["pass", "refuse", "pass"]
        assert ask(url, amount=1).reason == "amount exceeds what is left of today: 0"


def test_the_program_in_node_writes_each_call_and_nothing_of_its_content(tmp_path: Path) -> None:
    project = tmp_path / "limit-it"
    new("limit-it", lang=Language.NODE, directory=project)
    node = shutil.which("node")
    assert node is not None, "install Node.js"
    with program(project, [node, "plugin.mjs"], FILE="calls.jsonl") as url:
        assert ask(url, secret="s3cret").verdict == "pass"
    lines = (project / "calls.jsonl").read_text().splitlines()
    assert [json.loads(line)["tool"] for line in lines] == ["pay"]
    assert "s3cret" not in lines[0]
