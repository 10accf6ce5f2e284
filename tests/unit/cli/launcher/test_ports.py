"""The ports of `toolbus up`: remembered, chosen and requested ones."""

import socket
from collections.abc import Iterator

import pytest

from toolbus_cli.errors import CommandError
from toolbus_cli.launcher import ports


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_remembered_port_is_reused_while_it_is_free(listening: int) -> None:
    free = ports.free()
    assert ports.free(free) == free
    assert ports.free(listening) != listening
    assert ports.free("nonsense") > 0


def test_a_chosen_port_is_reserved_for_the_child() -> None:
    port = ports.free()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((ports.LOOPBACK, port))
    with socket.create_server((ports.LOOPBACK, port)) as child:  # as every service binds
        assert child.getsockname()[1] == port


def test_a_port_in_use_is_rejected_and_zero_selects_any(listening: int) -> None:
    with pytest.raises(CommandError, match="is already in use"):
        ports.requested("127.0.0.1", listening)
    assert ports.requested("127.0.0.1", 0, listening) != listening


def test_an_address_of_another_machine_is_rejected() -> None:
    with pytest.raises(CommandError, match=r"192\.0\.2\.1"):
        ports.requested("192.0.2.1", 8080)
