"""`toolbus call`, to a terminal and elsewhere: what a tool writes does nothing to a terminal."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from harness.engines.engine import installed

TEXT = "first\nsec\x1b[2Jond \u202eback\u200b"
SHOWN = (
    "first\nsec⟨U+001B ESCAPE⟩[2Jond ⟨U+202E RIGHT-TO-LEFT OVERRIDE⟩back⟨U+200B ZERO WIDTH SPACE⟩\n"
)


class Endpoint(BaseHTTPRequestHandler):
    """Answers every call with the same text."""

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["content-length"]))
        result = {"content": [{"type": "text", "text": TEXT}]}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/mcp"
    server.shutdown()
    thread.join()
    server.server_close()


def command(*options: str) -> list[str]:
    return [installed("toolbus"), "call", "docs__read", "--key", "tbk_x_y", *options]


def environment(endpoint: str) -> dict[str, str]:
    return {"PATH": os.defpath, "TOOLBUS_URL": endpoint, "LC_ALL": "C.UTF-8"}


def on_a_terminal(endpoint: str, *options: str) -> str:
    """What a terminal is sent."""
    ours, theirs = pty.openpty()
    ran = subprocess.Popen(command(*options), env=environment(endpoint), stdout=theirs)
    os.close(theirs)
    sent = b""
    try:
        while part := os.read(ours, 4096):
            sent += part
    except OSError:  # how the end of a terminal is told on Linux
        pass
    finally:
        os.close(ours)
    assert ran.wait(60) == 0
    return sent.decode().replace("\r\n", "\n")


def test_a_terminal_is_sent_nothing_it_would_act_on(endpoint: str) -> None:
    assert on_a_terminal(endpoint) == SHOWN


def test_a_terminal_is_sent_the_text_itself_where_that_is_wanted(endpoint: str) -> None:
    assert on_a_terminal(endpoint, "--raw") == TEXT + "\n"


def test_what_is_no_terminal_is_sent_the_text_itself(endpoint: str) -> None:
    ran = subprocess.run(
        command(), env=environment(endpoint), capture_output=True, timeout=60, check=True
    )
    assert ran.stdout.decode() == TEXT + "\n"
