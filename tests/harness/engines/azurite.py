"""Azurite, an emulator of Azure's stores. `TOOLBUS_AZURITE` is the path of `azurite-blob`.

Install it with `npm install azurite`.
"""

import base64
import hmac
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.request import Request, urlopen

from harness.engines.engine import Engine

PROGRAM = "TOOLBUS_AZURITE"
ACCOUNT = "events"
ACCOUNT_KEY = base64.b64encode(b"a key of this test".ljust(64)).decode()
_VERSION = "2023-11-03"


class Azurite(Engine):
    """The blob service of Azurite with one account. It verifies the signature of every request."""

    def command(self) -> Sequence[str]:
        """Return the command line of the blob service."""
        return [
            "env", f"AZURITE_ACCOUNTS={ACCOUNT}:{ACCOUNT_KEY}", os.environ[PROGRAM],
            "--blobPort", str(self.port), "--location", str(self.directory), "--silent",
            "--skipApiVersionCheck", "--disableTelemetry",
        ]  # fmt: skip

    def create_container(self, name: str) -> None:
        """Create a container."""
        self._send("PUT", name, "?restype=container", "\nrestype:container")

    def read(self, path: str) -> bytes:
        """Return the content of a blob. The path is the container and the percent-encoded name."""
        return self._send("GET", path)

    def _send(self, method: str, path: str, query: str = "", signed_query: str = "") -> bytes:
        now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        blanks = "\n" * 12
        text = (
            f"{method}{blanks}x-ms-date:{now}\nx-ms-version:{_VERSION}\n"
            f"/{ACCOUNT}/{ACCOUNT}/{path}{signed_query}"
        )
        key = base64.b64decode(ACCOUNT_KEY)
        signature = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
        headers = {
            "x-ms-date": now, "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {ACCOUNT}:{signature}",
        }  # fmt: skip
        url = f"http://127.0.0.1:{self.port}/{ACCOUNT}/{path}{query}"
        with urlopen(Request(url, method=method, headers=headers)) as answer:
            data: bytes = answer.read()
        return data
