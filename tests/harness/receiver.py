"""A receiver of webhooks over real HTTP, which can be told to fail, and looks at signatures."""

import base64
import hmac
import json
import threading
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from harness.engines import own_port


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What it told."""
        return json.loads(self.body)

    def signed_with(self, secret: bytes) -> bool:
        """Whether the signature is right, worked out here from the specification's words."""
        told = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}."
        expected = hmac.new(secret, told.encode() + self.body, sha256).digest()
        version, _, signature = self.headers["webhook-signature"].partition(",")
        return version == "v1" and base64.b64decode(signature) == expected


class Receiver:
    """Listens while it is entered; `status` is what it answers."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or own_port()
        self.received: list[Received] = []
        self.status = 204
        self.location = ""
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, headers, body))
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
