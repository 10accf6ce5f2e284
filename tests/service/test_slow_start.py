"""Servers that start slower than the probe of their protocol family."""

import sys
from pathlib import Path

import pytest

from harness.services.call_runner import CallRunner
from toolbus_common.config.servers.isolation import Files
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.mcp import stdio as stdio_upstream
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream

TESTS = Path(__file__).resolve().parents[1]
SLOWLY = """
import runpy, sys, time
time.sleep(1)
sys.argv = ["fixture_server", *sys.argv[1:]]
runpy.run_module("fixture_server", run_name="__main__")
"""


@pytest.mark.parametrize("family", ["modern", "legacy"])
async def test_a_slowly_starting_server_is_found_in_its_family(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", SLOWLY, "--stdio", "--family", family]
    client = CallRunner()
    held = Isolation(files=Files(read=(str(TESTS),)))
    upstream = StdioUpstream(command, {"PYTHONPATH": str(TESTS)}, "", client.news, held)
    monkeypatch.setattr(stdio_upstream, "PROBE_SECONDS", 0.2)
    shake_hands = upstream._connection.initialize

    async def then_patiently() -> Described:
        monkeypatch.setattr(stdio_upstream, "PROBE_SECONDS", 60.0)
        return await shake_hands()

    monkeypatch.setattr(upstream._connection, "initialize", then_patiently)
    try:
        assert (await upstream.open()).family == family
    finally:
        await upstream.close()
