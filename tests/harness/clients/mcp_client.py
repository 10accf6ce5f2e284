"""Plain HTTP client of the MCP endpoint."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body. The value of a stream is its last message, which is the response."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            data = [line for line in self.body.splitlines() if line.startswith(b"data: {")]
            return json.loads(data[-1].removeprefix(b"data: "))
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The JSON-RPC error. Raises `KeyError` if there is none."""
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def text(self) -> str:
        """The first text of a tool's result."""
        return str(self.json["result"]["content"][0]["text"])

    @property
    def code(self) -> str:
        """Toolbus's error code; empty for a success."""
        return str(self.error["data"]["code"]) if "error" in self.json else ""


@dataclass(frozen=True)
class Client:
    """A client of one endpoint with one key."""

    endpoint: str
    key: str = ""
    patience: float = 60.0

    def post(self, body: Any, **headers: str) -> Answer:
        """Send a POST request on a new connection. Bytes are sent unchanged."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**JSON, **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self._exchange("POST", self.endpoint, data, sent)

    def get(self, url: str, **headers: str) -> Answer:
        """Send a GET; without a key only with these headers."""
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self._exchange("GET", url, None, sent)

    def delete(self, **headers: str) -> Answer:
        """Send a DELETE to the endpoint."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Authorization"] = f"Bearer {self.key}"
        return self._exchange("DELETE", self.endpoint, None, sent)

    @contextmanager
    def leaving(self, body: Any, **headers: str) -> Iterator[None]:
        """Send a POST request, and disconnect at the end of the context."""
        target = urlsplit(self.endpoint)
        sent = {**JSON, "Authorization": f"Bearer {self.key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection(target.hostname or "", target.port)) as connection:
            connection.request("POST", target.path, json.dumps(body), sent)
            yield

    def _exchange(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str]
    ) -> Answer:
        target = urlsplit(url)
        connection = http.client.HTTPConnection(
            target.hostname or "", target.port, timeout=self.patience
        )
        try:
            where = f"{target.path}?{target.query}" if target.query else target.path
            connection.request(method, where, data, headers)
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def request(self, method: str, params: dict[str, Any] | None = None, **headers: str) -> Answer:
        """Send a JSON-RPC request of the session-based family."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return self.post(request, **headers)

    def call(self, tool: str, arguments: dict[str, Any] | None = None, run: str = "") -> Answer:
        """Call a tool. `run` is a trace id with which the test finds the events."""
        params = {"name": tool, "arguments": arguments or {}}
        meta = {"_meta": {"traceparent": f"00-{run}-00000000000000aa-01"}} if run else {}
        return self.request("tools/call", {**params, **meta})

    def tools(self) -> list[str]:
        """Return the names of the tools that the key can use."""
        return [tool["name"] for tool in self.request("tools/list").json["result"]["tools"]]

    def sees(self, *tools: str) -> bool:
        """Return whether the key lists these tools. An unknown key lists none."""
        reply = self.request("tools/list").json.get("result", {"tools": []})
        return {*tools} <= {tool["name"] for tool in reply["tools"]}
