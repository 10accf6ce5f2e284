"""Servers in containers, with a program in place of the engine that records its arguments."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.upstream import TESTS
from harness.services.call_runner import CallRunner
from toolbus_common.config import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.settings import Settings
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.factory import reached

IMAGE = "registry.example/mcp/fixture@sha256:" + "0a" * 32
ENGINE = f"""#!{sys.executable}
import json, os, sys
with open(os.path.join(os.path.dirname(__file__), "runs"), "a") as runs:
    runs.write(json.dumps([sys.argv[1:], os.environ.get("TOKEN")]) + "\\n")
if sys.argv[1] == "run":
    os.environ["PYTHONPATH"] = {str(TESTS)!r}
    os.execv({sys.executable!r}, [{sys.executable!r}, "-m", "fixture_server", "--stdio"])
"""
COSIGN = """#!/bin/sh
[ "$4" = "$(cat "$(dirname "$0")/signed")" ]
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a directory of programs that comes first, with an engine and a verifier in it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("docker", ENGINE), ("cosign", COSIGN)):
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs


async def opened(tmp_path: Path, **settings: Any) -> CallRunner:
    client = CallRunner()
    declared = Server(container={"image": IMAGE}, env={"TOKEN": "hush"})
    own = Settings(state_dir=tmp_path, **settings)
    upstream = reached(declared, client.news, DialerFactory(), {}, settings=own, name="fixture")
    try:
        await client.open(upstream)
    except BaseException:
        await upstream.close()
        raise
    return client


async def test_a_server_in_a_container_is_called_after_its_leftovers_are_removed(
    engine: Path, tmp_path: Path
) -> None:
    client = await opened(tmp_path)
    try:
        assert (await client.call("test_simple_text")).text
    finally:
        await client.close()
    removed, run = [json.loads(line) for line in (engine / "runs").read_text().splitlines()]
    assert removed[0][:2] == ["rm", "--force"]
    assert run[0][0] == "run"
    assert removed[0][2] == run[0][run[0].index("--name") + 1]
    assert run[1] == "hush"


async def test_an_image_with_a_verified_signature_runs(engine: Path, tmp_path: Path) -> None:
    (engine / "signed").write_text(IMAGE)
    await (await opened(tmp_path, cosign_key="cosign.pub")).close()


async def test_an_unsigned_image_does_not_run(engine: Path, tmp_path: Path) -> None:
    (engine / "signed").write_text("another")
    with pytest.raises(UpstreamDeadError, match="signature of its image could not be verified"):
        await opened(tmp_path, cosign_key="cosign.pub")
    assert "run" not in [
        json.loads(line)[0][0] for line in (engine / "runs").read_text().split("\n") if line
    ]
