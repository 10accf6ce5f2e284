"""The way out of a network of its own: a socket is listened at here, and answered elsewhere."""

import os

_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_HERE = "localhost,127.0.0.1,::1"


def hand_over(descriptor: int) -> str:
    """Listen at the only address there is, hand that to who judges, and tell its URL.

    A socket stays in the network it was made in, whoever accepts: so nothing needs to run here.
    """
    import socket  # noqa: PLC0415 - few servers want it

    with (
        socket.socket(fileno=descriptor) as hatch,
        socket.create_server(("127.0.0.1", 0), backlog=128) as listening,
    ):
        socket.send_fds(hatch, [b"."], [listening.fileno()])
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def name_as_proxy(url: str) -> None:
    """Tell programs of it, in the ways they look for."""
    for name in _NAMES:
        os.environ[name] = os.environ[name.lower()] = url
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = _HERE
    os.environ["NODE_USE_ENV_PROXY"] = "1"  # else Node's own client looks at none of these
