"""Process of the tests' REST server, with the requests that it received."""

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
        """Return the command line."""
        python = ["/usr/bin/env", f"PYTHONPATH={TESTS}", sys.executable]
        return [*python, "-m", "harness.apis.rest_server", str(self.port)]

    @property
    def origin(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def document(self) -> str:
        """The URL of its OpenAPI document."""
        return f"{self.origin}/openapi.json"

    def seen(self) -> list[dict[str, Any]]:
        """Return the received requests. The oldest is first."""
        found: list[dict[str, Any]] = self._ask("GET", "/seen")
        return found

    def forget(self) -> None:
        """Clear the received requests."""
        self._ask("DELETE", "/seen")

    def describe(self, document: Any) -> None:
        """Serve this document from now on. With None, the document is unavailable."""
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
