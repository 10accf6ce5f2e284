"""Ports of mock servers stay reserved from one scenario to the next."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from conformance.reserved_ports import Spent


def test_a_port_in_an_output_stays_reserved_until_the_leg_is_over(
    tmp_path: Path,
) -> None:
    with closing(socket.create_server(("", 0))) as mock:
        port = mock.getsockname()[1]
    body = tmp_path / "auth" / "checks.json"
    body.parent.mkdir()
    body.write_text(f'{{"issuer": "http://localhost:{port}"}}')
    with Spent() as spent:
        spent.hold(tmp_path)
        spent.hold(tmp_path)
        with closing(socket.socket()) as another, pytest.raises(OSError, match="in use"):
            another.bind(("", port))
    with closing(socket.socket()) as another:
        another.bind(("", port))
