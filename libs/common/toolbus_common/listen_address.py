"""Addresses to listen on: `HOST:PORT`, with an IPv6 host in brackets."""

from typing import NamedTuple


class HostPort(NamedTuple):
    """An address to listen on. Port 0 means any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parsed(text: str) -> HostPort:
    """Return the address in `HOST:PORT`. Raises `ValueError` with a message that shows the form."""
    host, colon, number = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    whole = (
        colon
        and bare
        and (":" not in bare or host == f"[{bare}]")
        and number.isascii()
        and number.isdecimal()
        and len(number) <= 5  # noqa: PLR2004 - 65535
        and int(number) < 1 << 16
    )
    if not whole:
        raise ValueError(
            f"'{text[:80]}' is not HOST:PORT; write 127.0.0.1:9090, [::1]:9090, or port 0 "
            "for any free port"
        )
    return HostPort(bare, int(number))
