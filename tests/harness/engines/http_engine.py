"""Server process that tests control over HTTP with JSON bodies."""

import json
import ssl
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.engines.engine import Engine
from harness.oauth.client_certificates import Certificates

SECONDS = 60.0


class HttpEngine(Engine):
    """A server process with a plain HTTP interface."""

    @property
    def origin(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def exchange(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request with a JSON body, and return the decoded response."""
        with closing(self.connection()) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read())

    def connection(self) -> HTTPConnection:
        """Open a connection to the server."""
        return HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)


class SecureEngine(HttpEngine):
    """A server process that uses TLS with the test's certificates."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        super().__init__(directory)
        self.certificates = certificates

    @property
    def origin(self) -> str:
        """The base URL, with the host name of the certificate."""
        return f"https://localhost:{self.port}"

    def connection(self) -> HTTPConnection:
        """Open a TLS connection that trusts the test's certificate authority."""
        context = ssl.create_default_context(cafile=self.certificates.ca)
        return HTTPSConnection("localhost", self.port, timeout=SECONDS, context=context)


def redirect_of(location: str) -> str:
    """Send a browser's GET request, and return the `Location` of the redirect."""
    target = urlsplit(location)
    with closing(HTTPConnection(target.netloc, timeout=SECONDS)) as connection:
        connection.request("GET", f"{target.path}?{target.query}")
        return str(connection.getresponse().headers["location"])
