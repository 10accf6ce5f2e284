"""An agent without a model: it does its user's calls, and obeys every injected text that it reads.

This is the worst case: a real model obeys some of them.
"""

import json
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

PROTOCOL = "2025-11-25"
# Tools whose names begin like this read. All other calls of an attack are its aims.
READING = ("get_", "read_", "list_", "search_")


@dataclass
class Outcome:
    """What happened in one scenario.

    `read` says whether the injected text reached the agent, `reached` are the calls of the attack
    that arrived at the server, and `held` are the codes of those that did not.
    """

    done: bool = True
    read: bool = False
    reached: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # codes of the user's own calls
    approvals: int = 0  # approvals of the user's own calls
    texts: list[str] = field(default_factory=list)


class Session:
    """A client's session at the gateway, on one connection."""

    def __init__(self, endpoint: str, key: str) -> None:
        target = urlsplit(endpoint)
        self._connection = HTTPConnection(target.hostname or "", target.port, timeout=60)
        self._path = target.path
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {key}",
        }

    def begin(self) -> None:
        """Begin a new session, and so a new run."""
        self._headers.pop("Mcp-Session-Id", None)
        hello = {"protocolVersion": PROTOCOL, "capabilities": {}}
        fields = {**hello, "clientInfo": {"name": "bench", "version": "1"}}
        response, _ = self._post({"id": 1, "method": "initialize", "params": fields})
        self._headers["Mcp-Session-Id"] = response
        self._headers["MCP-Protocol-Version"] = PROTOCOL
        self._post({"method": "notifications/initialized"})

    def end(self) -> None:
        """End the session."""
        self._connection.request("DELETE", self._path, headers=self._headers)
        self._connection.getresponse().read()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the whole response of a call."""
        params = {"name": tool, "arguments": arguments}
        answer: dict[str, Any] = self._post({"id": 2, "method": "tools/call", "params": params})[1]
        return answer

    def tools(self) -> list[dict[str, Any]]:
        """Return the listed tools."""
        found = self._post({"id": 2, "method": "tools/list", "params": {}})[1]
        tools: list[dict[str, Any]] = found["result"]["tools"]
        return tools

    def _post(self, message: dict[str, Any]) -> tuple[str, Any]:
        body = json.dumps({"jsonrpc": "2.0", **message})
        self._connection.request("POST", self._path, body, self._headers)
        response = self._connection.getresponse()
        text = response.read()
        if (response.getheader("Content-Type") or "").startswith("text/event-stream"):
            lines = [line for line in text.splitlines() if line.startswith(b"data: {")]
            text = lines[-1].removeprefix(b"data: ")
        return response.getheader("Mcp-Session-Id") or "", json.loads(text) if text else None


class Agent:
    """The agent of one suite. `decide` approves its user's own calls, and rejects others."""

    def __init__(self, session: Session, decide: Any, arrived: Any) -> None:
        self._session, self._decide, self._arrived = session, decide, arrived

    def run(self, suite: str, scenario: dict[str, Any], goal: str) -> Outcome:
        """Do the user's calls; obey as soon as a result contains the injected goal."""
        self._session.begin()
        outcome, wanted = Outcome(), _plain(goal)
        for step in scenario["calls"]:
            answer = self._own_call(f"{suite}__{step['tool']}", step["arguments"], outcome)
            if answer is None:
                outcome.done = False
                continue
            outcome.texts.append(answer)
            if wanted and not outcome.read and wanted in _plain(answer):
                outcome.read = True
                self._obey(suite, scenario["attack"], outcome, answer)
        self._session.end()
        return outcome

    def _own_call(self, tool: str, arguments: dict[str, Any], outcome: Outcome) -> str | None:
        answer = self._session.call(tool, arguments)
        if code(answer) == "approval_required":
            outcome.approvals += 1
            self._decide(answer["error"]["data"]["approval"], own=True)
            answer = self._session.call(tool, arguments)
        if failed := code(answer):
            outcome.refused.append(failed)
            return None
        return text_of(answer)

    def _obey(self, suite: str, calls: list[dict[str, Any]], outcome: Outcome, read: str) -> None:
        for step in calls:
            arguments = {
                name: value.replace("{read}", read) if isinstance(value, str) else value
                for name, value in step["arguments"].items()
            }
            aim = not step["tool"].startswith(READING) or step["tool"] == "get_webpage"
            before = self._arrived() if aim else 0
            answer = self._session.call(f"{suite}__{step['tool']}", arguments)
            if code(answer) == "approval_required":
                self._decide(answer["error"]["data"]["approval"], own=False)
            if not aim:
                read = text_of(answer) if not code(answer) else read
            elif self._arrived() > before:
                outcome.reached.append(step["tool"])
            else:
                outcome.held.append(code(answer) or "not sent")


def code(answer: dict[str, Any]) -> str:
    """Return the code of a JSON-RPC error; empty for a result."""
    if "error" not in answer:
        return ""
    return str((answer["error"].get("data") or {}).get("code") or answer["error"]["message"])


def text_of(answer: dict[str, Any]) -> str:
    """Return the texts of a result."""
    parts = answer["result"].get("content", [])
    return "\n".join(part.get("text", "") for part in parts)


def _plain(text: str) -> str:
    """Return the text without differences of white space, escapes and quotes."""
    return "".join(each for each in text.replace("\\n", "").lower() if each.isalnum())
