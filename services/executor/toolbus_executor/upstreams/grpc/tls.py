"""TLS credentials for a gRPC server, from the same settings as for other upstreams."""

import pkgutil
from pathlib import Path
from typing import Any

import grpc

from toolbus_common.egress.tls import Tls

_OWN = "_cython/_credentials/roots.pem"  # the library's default certificate authorities


def credentials(tls: Tls) -> Any:
    """Return the library's credentials: certificate authorities and client certificate.

    Raises `EgressError`.
    """
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
