"""Reservation of free or requested ports until this process ends."""

import errno
import socket

from toolbus_cli.errors import CommandError

LOOPBACK = "127.0.0.1"
_kept: set[tuple[str, int]] = set()  # bound by this process until it ends


def free(remembered: object = None) -> int:
    """Reserve the remembered port if it is available, else any free port."""
    if isinstance(remembered, int) and 0 < remembered < 1 << 16:
        refusal = _keep(LOOPBACK, remembered)
        if refusal is None:
            return remembered
    return _any()


def is_kept(port: object) -> bool:
    """Return whether this process has reserved a port, on any address."""
    return any(port == kept for _, kept in _kept)


def requested(host: str, port: int, remembered: object = None, option: str = "--port") -> int:
    """Reserve the requested port (0: any). Raises `CommandError` if it is not available."""
    if port == 0:
        return free(remembered)
    refusal = _keep(host, port)
    if refusal is None:
        return port
    if refusal.errno == errno.EADDRINUSE:
        raise CommandError(
            f"Port {port} on {host} is already in use; choose another with {option}."
        )
    reason = (refusal.strerror or "permission denied").lower()
    raise CommandError(
        f"Cannot listen on {host}:{port} ({reason}); choose another address or port."
    )


def _any() -> int:
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((LOOPBACK, 0))
    port = int(kept.getsockname()[1])
    kept.detach()
    _kept.add((LOOPBACK, port))
    return port


def _keep(host: str, port: int) -> OSError | None:
    """Bind a port without listening, so that a child can listen on it; return an error, if any.

    Without this, the system could assign the port to an outgoing connection before the child
    listens or while it restarts.
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
    """Listen on a port and stop at once.

    Raises `OSError` if another process listens on the port, which binding does not detect.
    """
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
