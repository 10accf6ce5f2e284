"""TLS servers that ask clients for certificates: which one came is in each request's scope."""

import asyncio
import ssl
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from harness.oauth.certificates import Authority


class Seeing(H11Protocol):
    """Tells an application the thumbprint (x5t#S256) of the certificate that came."""

    def connection_made(self, transport: Any) -> None:
        """Look at it once for all requests of the connection."""
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.app_state = {**self.app_state, "shown": thumbprint_of(shown) if shown else ""}


def thumbprint_of(certificate: bytes) -> str:
    """What stands for a certificate in DER form (RFC 8705 section 3.1)."""
    return urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode()


def kept_thumbprint(file: str) -> str:
    """The same of one in PEM form."""
    return thumbprint_of(ssl.PEM_cert_to_DER_cert(Path(file).read_text()))


def shown(scope: Any) -> str:
    """Which certificate came with a request; empty: none."""
    return str(scope.get("state", {}).get("shown", ""))


async def serve(app: Any, files: list[str], *places: tuple[int, ssl.VerifyMode]) -> None:
    """Serve at ports, each of which asks for certificates in its way, until ended."""
    certificate, key, authority = files

    def server(port: int, asks: ssl.VerifyMode) -> uvicorn.Server:
        result = uvicorn.Config(
            app, port=port, log_level="error", http=Seeing, ssl_certfile=certificate,
            ssl_keyfile=key, ssl_ca_certs=authority, ssl_cert_reqs=asks,
        )  # fmt: skip
        return uvicorn.Server(result)

    await asyncio.gather(*(server(*each).serve() for each in places))


class Certificates:
    """Of a test: an authority, a server and two clients it vouches for, and a stranger's."""

    def __init__(self, directory: Path) -> None:
        known, other = Authority(_made(directory / "known")), Authority(_made(directory / "other"))
        self.ca = known.ca
        self.server = known.vouched("localhost")
        self.client, self.second = known.vouched("gateway"), known.vouched("second")
        self.strange = other.vouched("stranger")

    @property
    def listening(self) -> list[str]:
        """What a server is started with."""
        return [*self.server, self.ca]


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
