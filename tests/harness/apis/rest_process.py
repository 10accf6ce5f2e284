"""The REST server of the tests as a process, and what it saw."""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from harness.engines.engine import Engine

TESTS = Path(__file__).parents[2]


class RestServer(Engine):
    """A process of `harness.apis.rest_server`."""

    def command(self) -> list[str]:
        """It listens on our port."""
        python = ["/usr/bin/env", f"PYTHONPATH={TESTS}", sys.executable]
        return [*python, "-m", "harness.apis.rest_server", str(self.port)]

    @property
    def origin(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def document(self) -> str:
        """Where its document is."""
        return f"{self.origin}/openapi.json"

    def seen(self) -> list[dict[str, Any]]:
        """The requests that reached it, the oldest first."""
        found: list[dict[str, Any]] = self._ask("GET", "/seen")
        return found

    def forget(self) -> None:
        """Forget what reached it."""
        self._ask("DELETE", "/seen")

    def describe(self, document: Any) -> None:
        """Serve this document from now on; with None the document cannot be had."""
        self._ask("PUT", "/openapi.json", json.dumps(document).encode(), fine=(200, 503))

    def _ask(
        self, method: str, path: str, body: bytes | None = None, fine: tuple[int, ...] = (200,)
    ) -> Any:
        request = urllib.request.Request(self.origin + path, body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            assert error.code in fine, error  # noqa: PT017
            return None
