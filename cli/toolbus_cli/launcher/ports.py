"""Ports: taken or free, remembered from one start to the next, and kept once chosen."""

import errno
import socket

from toolbus_cli.errors import CommandError

LOOPBACK = "127.0.0.1"
_kept: set[tuple[str, int]] = set()  # bound by this process until it ends


def free(remembered: object = None) -> int:
    """The remembered port if it can be had, else any; ours from now on."""
    if isinstance(remembered, int) and 0 < remembered < 1 << 16:
        refusal = _keep(LOOPBACK, remembered)
        if refusal is None:
            return remembered
    return _any()


def is_kept(port: object) -> bool:
    """Whether this process chose a port already, on any address."""
    return any(port == kept for _, kept in _kept)


def asked_for(host: str, port: int, remembered: object = None, option: str = "--port") -> int:
    """The port somebody asked for (0: any). Raises `CommandError` when it cannot be had."""
    if port == 0:
        return free(remembered)
    refusal = _keep(host, port)
    if refusal is None:
        return port
    if refusal.errno == errno.EADDRINUSE:
        raise CommandError(f"Port {port} on {host} is taken; choose another with {option}.")
    reason = (refusal.strerror or "it is refused").lower()
    raise CommandError(f"Nothing may listen on {host}:{port} ({reason}); choose another.")


def _any() -> int:
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((LOOPBACK, 0))
    port = int(kept.getsockname()[1])
    kept.detach()
    _kept.add((LOOPBACK, port))
    return port


def _keep(host: str, port: int) -> OSError | None:
    """Bind a port and never listen: a child may, but the system gives it to nobody for a client.

    Else a connection of any process could take it before our child listens, or while it restarts.
    """
    if (host, port) in _kept:
        return None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        _try_to_listen(family, host, port)
        with socket.socket(family) as kept:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind((host, port))
            kept.detach()
    except OSError as error:
        return error
    _kept.add((host, port))
    return None


def _try_to_listen(family: socket.AddressFamily, host: str, port: int) -> None:
    """Raises `OSError`: a bound port that somebody else listens on is refused only here."""
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
