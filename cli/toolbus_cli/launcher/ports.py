"""Ports: taken or free, remembered from one start to the next."""

import errno
import socket

from toolbus_cli.errors import CommandError

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether one may listen there now."""
    return _refusal(host, port) is None


def free(remembered: object = None) -> int:
    """The remembered port if it is still free, else any."""
    if isinstance(remembered, int) and 0 < remembered < 1 << 16 and is_free(remembered):
        return remembered
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def asked_for(host: str, port: int, remembered: object = None) -> int:
    """The port somebody asked for (0: any). Raises `CommandError` when it cannot be had."""
    if port == 0:
        return free(remembered)
    refusal = _refusal(host, port)
    if refusal is None:
        return port
    if refusal.errno == errno.EADDRINUSE:
        raise CommandError(f"Port {port} on {host} is taken; choose another with --port.")
    reason = (refusal.strerror or "it is refused").lower()
    raise CommandError(f"Nothing may listen on {host}:{port} ({reason}); choose another.")


def _refusal(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # a bound port that already listens is refused only here
        except OSError as error:
            return error
    return None
