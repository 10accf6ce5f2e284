"""The Dockerfile: its user, its command and what it copies."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def dockerfile() -> list[list[str]]:
    """Return the words of each instruction, with continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [line.split() for line in lines if line and not line.startswith("#")]


def test_the_image_runs_the_command_without_root(dockerfile: list[list[str]]) -> None:
    last = {words[0]: words[1:] for words in dockerfile}
    assert last["ENTRYPOINT"] == ['["toolbus"]']
    assert last["USER"][0].partition(":")[0] not in ("0", "root")


def test_the_image_copies_existing_files(dockerfile: list[list[str]]) -> None:
    sources = [
        source
        for words in dockerfile
        if words[0] == "COPY" and not words[1].startswith("--from")
        for source in words[1:-1]
    ]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {"libs", "services", "cli", "pyproject.toml"} <= set(sources)
