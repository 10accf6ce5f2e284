"""A ClickHouse server for tests: our shim over the embedded engine, killable and startable."""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.engines.engine import Engine

SHIM = Path(__file__).with_name("clickhouse_shim.py")


class ClickHouseServer(Engine):
    """What was inserted is there after a kill."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """The shim, as a program."""
        return [sys.executable, str(SHIM), str(self.directory / "data"), str(self.port)]
