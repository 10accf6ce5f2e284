"""ClickHouse server as a process: an HTTP interface for the embedded engine."""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.engines.engine import Engine

SHIM = Path(__file__).with_name("clickhouse_shim.py")


class ClickHouseServer(Engine):
    """The process. Inserted rows survive a kill."""

    @property
    def url(self) -> str:
        """The base URL of the HTTP interface."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, str(SHIM), str(self.directory / "data"), str(self.port)]
