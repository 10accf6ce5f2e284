"""What is written of an answer, and what becomes of it when the client is gone."""

from typing import Any

import pytest

from toolbus_common.http_server.transport import AnswerTransport

HEAD, BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"{}"


class Transport:
    """A transport like uvloop's: writing to a closed one raises."""

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_head_is_written_with_its_body() -> None:
    transport = Transport()
    answers = AnswerTransport(transport, lambda head: head, transport.close)
    answers.write(HEAD)
    answers.write(BODY)
    assert transport.written == [HEAD + BODY]


@pytest.mark.parametrize("whole", [True, False])
def test_a_response_to_a_disconnected_client_is_dropped_without_error(*, whole: bool) -> None:
    transport = Transport()
    answers = AnswerTransport(transport, lambda head: head, transport.close)
    if whole:
        transport.close()
        answers.write(HEAD)
    else:
        answers.write(HEAD)
        transport.close()
    answers.write(BODY)
    answers.flush()
    answers.close()
    assert transport.written == []
