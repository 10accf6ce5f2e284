"""Processes of the authorization server and the protected MCP servers, and a metadata server."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from harness.engines.engine import Engine, own_port
from harness.engines.http_engine import HttpEngine, SecureEngine
from harness.network.json_server import Request, Response, answering
from harness.oauth.client_certificates import Certificates

WELL_KNOWN = "/.well-known/oauth-protected-resource/mcp"


class OAuthServer(HttpEngine):
    """The authorization server."""

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, str(Path(__file__).with_name("oauth_server.py")), str(self.port)]

    @property
    def issuer(self) -> str:
        """The URL of the issuer."""
        return self.origin

    def say(self, **fields: Any) -> None:
        """Change the behaviour."""
        self.exchange("POST", "/say", fields)

    def as_ever(self) -> Self:
        """Reset the server to its default behaviour."""
        usual = {"seconds": 3600, "iss": self.issuer, "document": {}, "subject": "ann@far"}
        self.say(**usual, nonce="", unbound=False, certificate="", secret_seconds=None)
        return self

    def expire(self) -> None:
        """End all access tokens."""
        self.exchange("POST", "/expire", {})

    def forget(self) -> None:
        """Delete all registered clients."""
        self.exchange("POST", "/forget", {})

    def give(self, count: int, client: str, secret: str) -> list[str]:
        """Create this client with `count` refresh tokens."""
        fields = {"count": count, "client": client, "secret": secret}
        return list(self.exchange("POST", "/give", fields))

    def seen(self, grant: str) -> list[dict[str, str]]:
        """Return the token requests with one grant type."""
        return [each for each in self.exchange("GET", "/seen") if each["grant_type"] == grant]


class CertificateBoundOAuthServer(SecureEngine, OAuthServer):
    """The authorization server over TLS. A second port requires client certificates."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        super().__init__(directory, certificates)
        self.second_port = own_port()

    def command(self) -> list[str]:
        """Return the command line with both ports."""
        return [*super().command(), str(self.second_port), *self.certificates.listening]

    def start(self) -> None:
        """Start the process, and return when both ports accept connections."""
        super().start()
        self.wait_for(self.second_port)

    @property
    def alias(self) -> str:
        """The URL of the port that requires client certificates."""
        return f"https://localhost:{self.second_port}"

    def announce_alias(self, **more: Any) -> None:
        """Add the alias to the metadata, and issue tokens only for one certificate."""
        aliases = {"token_endpoint": f"{self.alias}/token"}
        bound = "tls_client_certificate_bound_access_tokens"
        self.say(document={"mtls_endpoint_aliases": aliases, bound: True, **more})


class ProtectedServer(Engine):
    """The protected MCP server."""

    def __init__(self, directory: Path, issuer: str, *scopes: str, resource: str = "") -> None:
        super().__init__(directory)
        self._issuer, self._scopes, self._resource = issuer, scopes, resource

    def command(self) -> list[str]:
        """Return the command line."""
        program = Path(__file__).with_name("protected_server.py")
        words = [sys.executable, str(program), str(self.port), self._issuer, *self._scopes]
        return ["/usr/bin/env", f"RESOURCE={self._resource}", *words]

    @property
    def url(self) -> str:
        """The URL of the MCP endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"


class CertificateBoundServer(SecureEngine):
    """The MCP server over TLS. It requires client certificates and caller identities."""

    def __init__(self, directory: Path, far: CertificateBoundOAuthServer, gateway: str) -> None:
        super().__init__(directory, far.certificates)
        self._issuer, self._gateway = far.issuer, gateway

    def command(self) -> list[str]:
        """Return the command line."""
        program = Path(__file__).with_name("certificate_bound_server.py")
        words = [str(self.port), self._issuer, self._gateway]
        return [sys.executable, str(program), *words, *self.certificates.listening]

    @property
    def url(self) -> str:
        """The URL of the MCP endpoint."""
        return f"{self.origin}/mcp"

    def callers(self) -> list[dict[str, Any]]:
        """Return the verified callers. The oldest is first."""
        return list(self.exchange("GET", "/callers"))


class Resource:
    """The metadata of a server over HTTP. `hits` are the requested paths."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.hits: list[str] = []
        self.origin = ""

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{self.origin}/mcp"

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve until the context ends."""
        with answering(self._answer) as port:
            self.origin = f"http://127.0.0.1:{port}"
            yield self

    def _answer(self, request: Request) -> Response:
        self.hits.append(request.path)
        page = self.pages.get(request.path)
        return Response(404 if page is None else 200, page)

    def names(self, issuer: str, place: str = "/mcp", **more: Any) -> None:
        """Set the authorization server in the metadata of a path."""
        about = {"resource": self.origin + place, "authorization_servers": [issuer]}
        self.pages[WELL_KNOWN.replace("/mcp", place)] = about | more
