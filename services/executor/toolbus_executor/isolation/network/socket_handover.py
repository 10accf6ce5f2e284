"""Handover of a listening socket from a private network to the egress proxy."""

import os

_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_HERE = "localhost,127.0.0.1,::1"


def hand_over(descriptor: int) -> str:
    """Listen on the loopback, send the socket to the proxy, and return the proxy's URL.

    A socket stays in the network namespace that it was created in. The proxy can therefore use the
    socket from another network namespace.
    """
    import socket  # noqa: PLC0415 - few servers need it

    with (
        socket.socket(fileno=descriptor) as handover,
        socket.create_server(("127.0.0.1", 0), backlog=128) as listening,
    ):
        socket.send_fds(handover, [b"."], [listening.fileno()])
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def name_as_proxy(url: str) -> None:
    """Set the environment variables that make programs use this proxy."""
    for name in _NAMES:
        os.environ[name] = os.environ[name.lower()] = url
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = _HERE
    os.environ["NODE_USE_ENV_PROXY"] = "1"  # without it, Node's client ignores the variables
