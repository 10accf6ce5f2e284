"""The fixture server as a process, and what it saw."""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from harness.engines.engine import Engine

TESTS = Path(__file__).parents[1]


class FixtureServer(Engine):
    """`python -m fixture_server` on a port."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory)
        self._options = options

    def command(self) -> list[str]:
        """It finds its package in tests/."""
        python = ["/usr/bin/env", f"PYTHONPATH={TESTS}", sys.executable]
        return [*python, "-m", "fixture_server", "--http", str(self.port), *self._options]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def seen(self) -> dict[str, Any]:
        """What reached it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/seen", timeout=180) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def forget(self) -> None:
        """Let it count anew."""
        url = f"http://127.0.0.1:{self.port}/seen"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=180).close()
