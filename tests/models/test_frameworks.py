"""Frameworks of Python and SDKs of JavaScript work with a gateway's URL and key."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.models.model_gateway import SECRETS, ModelGateway
from harness.packages import npm

TEXT = "hello w1 w2 w3 w4 "
PACKAGES = (
    "openai@7.57.0", "@anthropic-ai/sdk@1.12.0", "ai@7.0.173", "@ai-sdk/openai@4.0.118",
)  # fmt: skip
HERE = Path(__file__).parent
PROGRAM_SECONDS = 120.0  # bound for a broken run


def test_frameworks_of_python(models: ModelGateway) -> None:
    found = printed(models, sys.executable, HERE / "framework_clients.py")
    assert len(found) == 5
    assert set(found.values()) == {TEXT}


def test_sdks_of_javascript(models: ModelGateway, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    directory = pytestconfig.cache.mkdir("node-models")
    for package in PACKAGES:
        npm.installed(package, "package.json", directory)
    program = directory / "sdk_clients.mjs"  # imports are resolved from the program's directory
    program.write_bytes((HERE / program.name).read_bytes())
    found = printed(models, npm.NODE, program)
    texts = ("chat", "chat_stream", "responses", "messages", "messages_stream", "ai_sdk")
    assert {found[name] for name in (*texts, "ai_sdk_stream")} == {TEXT}
    assert found["embedding"] == [0.5] * 4
    assert {"team-fast", "mock/mock", "claude/mock"} <= set(found["models"])
    assert found["unknown"] == ["NotFoundError", "model_not_found"]
    assert found["count_tokens"] == 9


def printed(models: ModelGateway, *command: str | Path) -> dict[str, Any]:
    """Run a program with the URL and a key of the gateway. Return the object that it prints."""
    done = subprocess.run(
        [*command, models.url, SECRETS["bot"]],
        capture_output=True,
        check=False,
        timeout=PROGRAM_SECONDS,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found
