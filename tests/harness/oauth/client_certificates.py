"""TLS servers that request client certificates, and add the thumbprint to the request scope."""

import asyncio
import ssl
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from harness.oauth.certificates import Authority


class CertificateProtocol(H11Protocol):
    """Protocol that adds the client certificate's thumbprint (x5t#S256) to the scope."""

    def connection_made(self, transport: Any) -> None:
        """Read the client certificate once, for all requests of the connection."""
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.app_state = {**self.app_state, "shown": thumbprint_of(shown) if shown else ""}


def thumbprint_of(certificate: bytes) -> str:
    """Return the thumbprint of a certificate in DER form (RFC 8705 section 3.1)."""
    return urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode()


def kept_thumbprint(file: str) -> str:
    """Return the thumbprint of a certificate in PEM form."""
    return thumbprint_of(ssl.PEM_cert_to_DER_cert(Path(file).read_text()))


def shown(scope: Any) -> str:
    """Return the thumbprint of the certificate of a request; empty without a certificate."""
    return str(scope.get("state", {}).get("shown", ""))


async def serve(app: Any, files: list[str], *places: tuple[int, ssl.VerifyMode]) -> None:
    """Serve at several ports until the process is killed.

    Each port has a separate requirement for client certificates.
    """
    certificate, key, authority = files

    def server(port: int, asks: ssl.VerifyMode) -> uvicorn.Server:
        result = uvicorn.Config(
            app, port=port, log_level="error", http=CertificateProtocol, ssl_certfile=certificate,
            ssl_keyfile=key, ssl_ca_certs=authority, ssl_cert_reqs=asks,
        )  # fmt: skip
        return uvicorn.Server(result)

    await asyncio.gather(*(server(*each).serve() for each in places))


class Certificates:
    """The certificates of a test: an authority, a server, two clients, and an untrusted client."""

    def __init__(self, directory: Path) -> None:
        known, other = Authority(_made(directory / "known")), Authority(_made(directory / "other"))
        self.ca = known.ca
        self.server = known.vouched("localhost")
        self.client, self.second = known.vouched("gateway"), known.vouched("second")
        self.strange = other.vouched("stranger")

    @property
    def listening(self) -> list[str]:
        """The paths for the start of a server."""
        return [*self.server, self.ca]


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
