"""Requests of commands over HTTP, and what a command imports for them."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from toolbus_cli.http_client import send

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def server(answer: bytes, received: list[bytes]) -> Iterator[str]:
    """Answer one request with these bytes; without any, be silent until the client is gone."""

    def serve() -> None:
        with suppress(OSError), listening.accept()[0] as opened:
            received.append(opened.recv(65536))
            opened.sendall(answer)
            while not answer and opened.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def test_a_response_is_cut_to_the_bytes_a_command_reads() -> None:
    received: list[bytes] = []
    with server(OK, received) as url:
        response = send("POST", f"{url}/a?b=c", body=b"x", headers={"A": "1"}, max_bytes=4)
    assert (response.status, response.body) == (200, b"hell")
    assert response.headers["content-type"] == "text/plain"
    assert received[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")


def test_no_redirect_is_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    with server(moved, []) as url:
        assert send("GET", url).status == 302


def test_a_silent_server_and_one_that_does_not_speak_http_are_distinguished() -> None:
    with server(b"", []) as url, pytest.raises(TimeoutError):
        send("GET", url, seconds=0.2)
    with server(b"SSH-2.0-x\r\n", []) as url, pytest.raises(ConnectionError):
        send("GET", url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/", "http://[::1/", "http://127.0.0.1:9/"])
def test_a_server_that_cannot_be_reached_is_a_connection_error(url: str) -> None:
    with pytest.raises(ConnectionError):
        send("GET", url)


@pytest.mark.parametrize("words", [["--help"], ["call", "--help"], ["connect", "--help"]])
def test_a_command_starts_without_importing_httpx(words: list[str]) -> None:
    program = "from toolbus_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "toolbus_cli.app" in done.stderr
    assert "httpx" not in done.stderr
    assert "httpcore" not in done.stderr
