"""Coding agents from npm work with a gateway's URL and key, as the page about models says."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.engines import engine
from harness.models.model_gateway import SECRETS, ModelGateway
from harness.packages import npm

CLAUDE_CODE, CODEX = "@anthropic-ai/claude-code@2.1.197", "@openai/codex@0.169.0"
GEMINI = "@google/gemini-cli@0.61.0"
KEY = "TOOLBUS_KEY"
TEXT = "w1 w2 w3 w4"
PROGRAM_SECONDS = 180.0  # bound for a broken run
CONFIG = """
model = "{model}"
model_provider = "toolbus"

[model_providers.toolbus]
name = "Toolbus"
base_url = "{url}/v1"
env_key = "TOOLBUS_KEY"
wire_api = "responses"
"""


@pytest.mark.parametrize("model", ["claude/mock", "team-fast"])
def test_claude_code_answers(
    models: ModelGateway, pytestconfig: pytest.Config, tmp_path: Path, model: str
) -> None:
    program = installed(pytestconfig, CLAUDE_CODE, "claude")
    environment = {
        "ANTHROPIC_BASE_URL": models.url,
        "ANTHROPIC_AUTH_TOKEN": SECRETS["bot"],
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    assert TEXT in printed(tmp_path, environment, program, "-p", "hello", "--model", model)


@pytest.mark.parametrize("model", ["claude/mock", "team-fast"])
def test_codex_answers(
    models: ModelGateway, pytestconfig: pytest.Config, tmp_path: Path, model: str
) -> None:
    program = installed(pytestconfig, CODEX, "codex")
    (tmp_path / "config.toml").write_text(CONFIG.format(model=model, url=models.url))
    environment = {"TOOLBUS_KEY": SECRETS["bot"], "CODEX_HOME": str(tmp_path)}
    found = printed(tmp_path, environment, program, "exec", "--skip-git-repo-check", "hello")
    assert TEXT in found


@pytest.mark.parametrize(
    ("client", "package", "connected"),
    [("claude", CLAUDE_CODE, "Connected"), ("gemini", GEMINI, "Connected"), ("codex", CODEX, KEY)],
)
def test_a_client_uses_the_configuration_that_toolbus_wrote(
    models: ModelGateway, pytestconfig: pytest.Config, tmp_path: Path,
    client: str, package: str, connected: str,
) -> None:  # fmt: skip
    program = installed(pytestconfig, package, client)
    environment = {KEY: SECRETS["bot"], "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    words = ("client", "install", client, "--by-variable", "--url", f"{models.url}/mcp")
    printed(tmp_path, environment, Path(engine.installed("toolbus")), *words)
    assert connected in printed(tmp_path, environment, program, "mcp", "list")


def installed(config: pytest.Config, package: str, program: str) -> Path:
    """Return the path of a package's program."""
    assert config.cache is not None
    directory = config.cache.mkdir("node-coding-agents")
    npm.installed(package, "package.json", directory)
    return directory / "node_modules" / ".bin" / program


def printed(home: Path, environment: dict[str, str], program: Path, *arguments: str) -> str:
    """Run a program in an empty home directory, and return what it prints."""
    done = subprocess.run(
        [program, *arguments],
        cwd=home,
        env={
            "HOME": str(home),
            "PATH": f"{npm.NODE.parent}{os.pathsep}{os.environ['PATH']}",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=PROGRAM_SECONDS,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode() + done.stderr.decode()
