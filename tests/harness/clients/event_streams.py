"""Server-sent events of a response, read message by message with a time limit."""

import http.client
import json
import time
from typing import Any, Self
from urllib.parse import urlsplit

from harness.clients.mcp_client import JSON, Client
from harness.waits import PATIENCE

Message = dict[str, Any]


class Events:
    """An open stream. The end of the context closes the connection."""

    def __init__(self, client: Client, body: Any = None, path: str = "", **headers: str) -> None:
        target = urlsplit(client.endpoint)
        self._connection = http.client.HTTPConnection(
            target.hostname or "", target.port, timeout=PATIENCE
        )
        sent = {"Authorization": f"Bearer {client.key}"} if client.key else {}
        sent["Accept"] = "text/event-stream" if body is None else JSON["Accept"]
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        verb = "GET" if data is None else "POST"
        self._connection.request(verb, path or target.path, data, sent)
        self._response = self._connection.getresponse()
        self.last_id = ""
        self.ids: list[str] = []
        self.retry = 0
        self.status = self._response.status
        self.type = self._response.getheader("content-type", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._response.close()
        self._connection.close()

    @property
    def body(self) -> bytes:
        """The rest of the body."""
        return self._response.read()

    def next(self) -> Message:
        """Return the next message. Raises an error at the end of the stream."""
        message: Message = json.loads(self.data())
        return message

    def data(self) -> str:
        """Return the data of the next event that has data."""
        while not (found := self._event()):
            pass
        return found

    def primed(self) -> str:
        """Read the first event, which has an id and no data, and return the id."""
        assert self._event() == ""
        return self.last_id

    def until(self, method: str) -> Message:
        """Return the next notification or request with this method."""
        while (message := self.next()).get("method") != method:
            pass
        return message

    def ended(self) -> bool:
        """Read until the server ends the stream."""
        while self._response.readline():
            pass
        return True

    def _event(self) -> str:
        """Return the data of the next event and record its id."""
        give_up = time.monotonic() + PATIENCE  # keep-alive lines contain no data
        while not (line := self._line()).startswith("data:"):
            assert time.monotonic() < give_up, "no event arrived"
            if line.startswith("id: "):
                self.last_id = line.removeprefix("id: ")
                self.ids.append(self.last_id)
            elif line.startswith("retry: "):
                self.retry = int(line.removeprefix("retry: "))
        return line.removeprefix("data:").lstrip()

    def _line(self) -> str:
        line = self._response.readline()
        assert line, "the stream has ended"
        return line.decode().rstrip("\n")
