"""Entry point: `python -m tests.fixture_server --http PORT` or `--stdio`."""

import argparse
import asyncio
from pathlib import Path

import uvicorn

from .http import App
from .methods import Fixture
from .request_counts import Seen
from .stdio import Pipe
from .wire import ProtocolFamily


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    transport = parser.add_mutually_exclusive_group(required=True)
    transport.add_argument("--http", type=int, metavar="PORT", help="listen here, at /mcp")
    transport.add_argument("--stdio", action="store_true", help="speak over the standard pipes")
    parser.add_argument("--family", choices=("modern", "legacy", "both"), default="both")
    parser.add_argument("--lax", action="store_true", help="check nothing that can be left")
    parser.add_argument("--classic", action="store_true", help="ask with a handshake alone")
    parser.add_argument("--sse", action="store_true", help="HTTP+SSE of 2024-11-05, at /sse")
    parser.add_argument("--page", type=int, default=0, help="entries on a page of a list")
    parser.add_argument("--ttl", type=int, default=60_000, help="ms its answers may be kept")
    parser.add_argument("--seen", type=Path, help="also write the counts of /seen to this file")
    parser.add_argument("--definitions", type=Path, help="name -> definition, or null, to list")
    given = parser.parse_args()
    families = (
        frozenset(ProtocolFamily)
        if given.family == "both"
        else frozenset({ProtocolFamily(given.family)})
    )
    fixture = Fixture(
        lax=given.lax,
        page=given.page,
        ttl=given.ttl,
        seen=Seen(given.seen),
        definitions=given.definitions,
        classic=given.classic,
    )
    if given.stdio:
        asyncio.run(Pipe(fixture, families).serve())
        return
    uvicorn.run(
        App(fixture, families, sse=given.sse),
        host="127.0.0.1",
        port=given.http,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
