"""MCP server that includes its secrets and the received headers in its errors."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from harness.network.json_server import Request, Response, answering
from harness.upstreams.call_log_server import envelope, local, text

JSON = {"content-type": "application/json"}


class LeakingServer:
    """The server. `die` returns 500 with `page` and all headers; other tools return `words`.

    At `refusing_url` it lists nothing: the error repeats all headers, and `last`.
    """

    def __init__(self, page: str, words: str, last: str = "") -> None:
        self.heads: list[dict[str, str]] = []
        self.url = self.refusing_url = ""
        self._page, self._words, self._last = page, words, last

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve until the context ends."""
        with answering(self._answer) as port:
            self.url = f"http://127.0.0.1:{port}/mcp"
            self.refusing_url = f"http://127.0.0.1:{port}/refusing"
            yield self

    def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(405)
        self.heads.append(request.headers)
        requested = request.json
        if "id" not in requested:
            return Response(202)
        if request.path == "/refusing" and requested["method"] != "initialize":
            message = f"{self._last}: {' '.join(request.headers.values())}"
            wrong = {"code": -32099, "message": message, "data": message}
            return Response(200, {**envelope(requested), "error": wrong}, JSON)
        if requested["method"] != "tools/call":
            return Response(200, {**envelope(requested), **local(requested)}, JSON)
        return self._called(requested, request.headers)

    def _called(self, request: Any, heads: dict[str, str]) -> Response:
        if request["params"]["name"] == "die":
            known = {"page": self._page, **heads}
            return Response(
                500, known, {**JSON, "set-cookie": self._page, "x-why": json.dumps(known)}
            )
        if request["params"]["name"] == "fault":
            wrong = {"code": -32050, "message": self._words, "data": self._words}
            return Response(200, {**envelope(request), "error": wrong}, JSON)
        return Response(200, {**envelope(request), "result": text(self._words)}, JSON)
