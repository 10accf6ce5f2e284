"""The fixture server as a process, with the requests it received."""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from harness.engines.engine import Engine

TESTS = Path(__file__).parents[1]


class FixtureServer(Engine):
    """A process of `fixture_server` on a port."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory)
        self._options = options

    def command(self) -> list[str]:
        """Return the command line; the package is in the working directory."""
        python = ["/usr/bin/env", f"PYTHONPATH={TESTS}", sys.executable]
        return [*python, "-m", "fixture_server", "--http", str(self.port), *self._options]

    @property
    def url(self) -> str:
        """The URL of the MCP endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def seen(self) -> dict[str, Any]:
        """Return the counts of what reached it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/seen", timeout=180) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def forget(self) -> None:
        """Reset the counts."""
        url = f"http://127.0.0.1:{self.port}/seen"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=180).close()
