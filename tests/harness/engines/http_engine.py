"""A server's process that tests talk to over HTTP, in JSON."""

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
    """One of them."""

    @property
    def origin(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def exchange(self, method: str, path: str, body: Any = None) -> Any:
        """Ask it something; what it answers."""
        with closing(self.connection()) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read())

    def connection(self) -> HTTPConnection:
        """How it is reached."""
        return HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)


class SecureEngine(HttpEngine):
    """One that speaks TLS, with the certificates of a test."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        super().__init__(directory)
        self.certificates = certificates

    @property
    def origin(self) -> str:
        """What it is called."""
        return f"https://localhost:{self.port}"

    def connection(self) -> HTTPConnection:
        """As who trusts its authority."""
        context = ssl.create_default_context(cafile=self.certificates.ca)
        return HTTPSConnection("localhost", self.port, timeout=SECONDS, context=context)


def sent_on(location: str) -> str:
    """Where a browser that goes there is sent on to."""
    target = urlsplit(location)
    with closing(HTTPConnection(target.netloc, timeout=SECONDS)) as connection:
        connection.request("GET", f"{target.path}?{target.query}")
        return str(connection.getresponse().headers["location"])
