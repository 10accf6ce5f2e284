"""TLS towards a gRPC server: the same authorities and certificates as towards any other."""

import pkgutil
from pathlib import Path
from typing import Any

import grpc

from toolbus_common.egress.tls import Tls

_OWN = "_cython/_credentials/roots.pem"  # what the library trusts where it is told nothing


def credentials(tls: Tls) -> Any:
    """Whom to trust, and who we are. Raises `EgressError`."""
    tls.check()
    certificate = _read(tls.certificate)
    return grpc.ssl_channel_credentials(_roots(tls), _read(tls.key) or certificate, certificate)


def _roots(tls: Tls) -> bytes | None:
    if tls.ca:
        return _read(tls.ca)
    if not tls.extra:
        return None
    return (pkgutil.get_data("grpc", _OWN) or b"") + b"\n" + (_read(tls.extra) or b"")


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
