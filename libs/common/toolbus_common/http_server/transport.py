"""Transport for responses: one system call for head and body, and a graceful close."""

import re
from collections.abc import Callable
from typing import Any

_HEAD = re.compile(rb"HTTP/1\.1 [2-5]")  # an interim response (1xx) has no body


class AnswerTransport:
    """A transport that delays the head of a response, to write it together with the body.

    uvicorn writes them separately, and one write is a tenth of the cost of a call in ingress.
    `on_head` returns the head to write. `on_close` is called once all data has been written.
    """

    def __init__(
        self, transport: Any, on_head: Callable[[bytes], bytes], on_close: Callable[[], None]
    ) -> None:
        self.raw = transport
        self._head = b""
        self._on_head = on_head
        self._on_close = on_close
        self.closed = False
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Write data. A head is delayed. Data for a client that has disconnected is dropped."""
        if self.is_closing():
            return
        if not self._head and _HEAD.match(data) is not None and data.endswith(b"\r\n\r\n"):
            self._head = self._on_head(data)
            return
        head, self._head = self._head, b""
        self.raw.write(head + data if head else data)

    def flush(self) -> None:
        """Write a delayed head without a body, such as the response to HEAD."""
        head, self._head = self._head, b""
        if head and not self.is_closing():
            self.raw.write(head)

    def is_closing(self) -> bool:
        """Return whether no more data can be written."""
        return self.closed or bool(self.raw.is_closing())

    def close(self) -> None:
        """Write the delayed head and close."""
        if not self.closed:
            self.flush()
            self.closed = True
            self._on_close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)
