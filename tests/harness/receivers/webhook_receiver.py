"""Webhook receiver over HTTP. It checks signatures, and can fail on request."""

import base64
import hmac
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from harness.engines.engine import own_port
from harness.network.json_server import Request, Response, answering


def webhook_secret(text: str) -> str:
    """Return a webhook secret. Its key is this text of 24 to 64 bytes."""
    return f"whsec_{base64.b64encode(text.encode()).decode()}"


class Received(Request):
    """A received request."""

    def signed_with(self, secret: str) -> bool:
        """Return whether the signature is valid. The check follows the specification."""
        text = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}."
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.digest(key, text.encode() + self.body, "sha256")).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


class Receiver:
    """A receiver that runs until the context ends. `status` is the status of its responses."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or own_port()
        self.received: list[Received] = []
        self.status = 204
        self.location = ""
        self.answer: Callable[[Received], tuple[int, bytes]] | None = None  # overrides `status`

    @property
    def url(self) -> str:
        """The URL."""
        return f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Self:
        self._served = ExitStack()
        self._served.enter_context(answering(self._answer, self.port))
        return self

    def __exit__(self, *_: object) -> None:
        self._served.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop listening until the context ends."""
        self._served.close()
        try:
            yield
        finally:
            self.__enter__()

    def _answer(self, request: Request) -> Response:
        received = Received(request.method, request.path, request.headers, request.body)
        self.received.append(received)
        status, body = self.answer(received) if self.answer else (self.status, b"")
        return Response(status, body, {"location": self.location} if self.location else {})
