"""`toolbus call`: the text of a tool on a terminal and elsewhere."""

import os
import pty
import subprocess
from collections.abc import Iterator

import pytest

from harness.engines.engine import installed
from harness.network.json_server import Request, Response, answering

TEXT = "first\nsec\x1b[2Jond \u202eback\u200b"
SHOWN = (
    "first\nsec⟨U+001B ESCAPE⟩[2Jond ⟨U+202E RIGHT-TO-LEFT OVERRIDE⟩back⟨U+200B ZERO WIDTH SPACE⟩\n"
)


def response(_request: Request) -> Response:
    body = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": TEXT}]}}
    return Response(200, body, {"content-type": "application/json"})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with answering(response) as port:
        yield f"http://127.0.0.1:{port}/mcp"


def command(*options: str) -> list[str]:
    return [installed("toolbus"), "call", "docs__read", "--key", "tbk_x_y", *options]


def environment(endpoint: str) -> dict[str, str]:
    return {"PATH": os.defpath, "TOOLBUS_URL": endpoint, "LC_ALL": "C.UTF-8"}


def on_a_terminal(endpoint: str, *options: str) -> str:
    """Run the command on a terminal; return its output."""
    ours, theirs = pty.openpty()
    ran = subprocess.Popen(command(*options), env=environment(endpoint), stdout=theirs)
    os.close(theirs)
    sent = b""
    try:
        while part := os.read(ours, 4096):
            sent += part
    except OSError:  # Linux signals the end of a terminal so
        pass
    finally:
        os.close(ours)
    assert ran.wait(60) == 0
    return sent.decode().replace("\r\n", "\n")


def test_control_characters_are_escaped_on_a_terminal(endpoint: str) -> None:
    assert on_a_terminal(endpoint) == SHOWN


def test_raw_text_is_printed_on_a_terminal_on_request(endpoint: str) -> None:
    assert on_a_terminal(endpoint, "--raw") == TEXT + "\n"


def test_raw_text_is_printed_where_output_is_no_terminal(endpoint: str) -> None:
    ran = subprocess.run(
        command(), env=environment(endpoint), capture_output=True, timeout=60, check=True
    )
    assert ran.stdout.decode() == TEXT + "\n"
