"""Client of the administration API."""

import json
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlsplit

from harness.clients.mcp_client import Answer
from harness.gateway.launched_gateway import Launched


@dataclass(frozen=True)
class Administrator:
    """A client with the API key `key` at one gateway."""

    base: str
    key: str = ""

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request. A string is sent as YAML, any other body as JSON."""
        target = urlsplit(self.base)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        data = None
        if body is not None:
            result = isinstance(body, str)
            data = (body if result else json.dumps(body)).encode()
            sent.setdefault("Content-Type", "application/yaml" if result else "application/json")
        connection = HTTPConnection(target.hostname or "", target.port, timeout=60)
        try:
            connection.request(method, f"/api{path}", data, sent)
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, received, response.read())
        finally:
            connection.close()

    def as_(self, key: str) -> "Administrator":
        """Return a client with another key."""
        return replace(self, key=key)

    def declared(self) -> tuple[dict[str, Any], str]:
        """Return the whole configuration and its ETag."""
        answer = self.request("GET", "/v1/configuration")
        assert answer.status == 200, answer.body
        return answer.json["configuration"], answer.headers["etag"]


def at(launched: Launched, key: str = "") -> Administrator:
    """Return the administration client of a gateway."""
    return Administrator(launched.ready["endpoint"].removesuffix("/mcp"), key)


def named(kind: str, name: str) -> str:
    """Return the path of one entry."""
    return f"/v1/{kind}/{quote(name, safe='')}"


def why(answer: Answer) -> str:
    """Return the code of a problem (RFC 9457). The problem must have a detail and a fix."""
    assert answer.headers["content-type"] == "application/problem+json", answer.headers
    problem = answer.json
    assert problem["type"] == f"urn:toolbus:error:{problem['code']}"
    assert (problem["status"], bool(problem["title"])) == (answer.status, True), answer.body
    assert problem["detail"], answer.body
    assert problem["fix"], answer.body
    return str(problem["code"])
