"""MCP client with one persistent connection."""

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit


class Speaker:
    """A client of one endpoint with one key."""

    def __init__(self, endpoint: str, key: str) -> None:
        target = urlsplit(endpoint)
        self._connection = HTTPConnection(target.hostname or "", target.port, timeout=60)
        self._where = f"{target.path}?{target.query}" if target.query else target.path
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {key}",
        }

    def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and return the whole answer."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        self._connection.request("POST", self._where, json.dumps(request), self._headers)
        body: dict[str, Any] = json.loads(self._connection.getresponse().read())
        return body

    def tools(self) -> list[dict[str, Any]]:
        """Return the listed tools."""
        listed: list[dict[str, Any]] = self.request("tools/list")["result"]["tools"]
        return listed

    def call(self, tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """Return the text of a tool's result, and whether it is an error."""
        reply = self.request("tools/call", {"name": tool, "arguments": arguments})
        if "error" in reply:
            return str(reply["error"]["message"]), True
        result = reply["result"]
        return result["content"][0]["text"], bool(result.get("isError"))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def got(url: str) -> Any:
    """Return the decoded answer of a GET."""
    target = urlsplit(url)
    connection = HTTPConnection(target.hostname or "", target.port, timeout=60)
    try:
        connection.request("GET", target.path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
