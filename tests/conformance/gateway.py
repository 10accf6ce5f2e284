"""Gateway of `toolbus up` over one upstream for the length of a leg."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conformance.key_proxy import Shim
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking

KEY = "tbk_conformance_a-secret-of-the-conformance-run"
UPSTREAM = "fixture"
CALL_SECONDS = 20.0
POLL_SECONDS = 0.5  # shorter than a server waits that cannot disconnect its reader


def configuration(url: str) -> dict[str, Any]:
    """Return toolbus.yaml: one server, one key for everything."""
    servers = {UPSTREAM: {"url": url}} if url else {}
    return {"servers": servers, "keys": {"conformance": {"secret": KEY, "tools": ["*"]}}}


@contextmanager
def gateway(directory: Path, url: str, **more: str) -> Iterator[Launched]:
    """Run a gateway with additional settings until its upstream's tools are listed."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"CALL_TIMEOUT": str(CALL_SECONDS), "POLL_AFTER": str(POLL_SECONDS), **more}
    fields = {f"TOOLBUS_{name}": value for name, value in settings.items()}
    launched = Launched(directory, **fields)
    launched.configure(configuration(url))
    try:
        launched.start()
        if url:
            until_blocking(lambda: launched.client(KEY).tools(), "the fixture's tools")
            until_blocking(launched.up_to_date, "every service knows them")
        yield launched
    finally:
        launched.stop()


@contextmanager
def shim(launched: Launched, path: str, prefix: str = "") -> Iterator[str]:
    """Run a proxy to the gateway that adds the key."""
    port = urlsplit(launched.ready["endpoint"]).port
    made = Shim(port or 80, path, KEY, prefix)
    made.start()
    try:
        yield made.url
    finally:
        made.stop()
