"""MCP server on stdio that prints all its secrets to standard error before it exits.

The test copies it into the gateway's directory. While a file `doomed` exists beside it, it exits at
startup, and callers receive the reason why the server is unavailable.
"""

import os
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

from fastmcp import FastMCP

DOOMED = Path(__file__).with_name("doomed")
server = FastMCP("frail")


def lament(card: str, words: str) -> None:
    """Print secrets in several spellings and split lines, in the same way as a careless server."""
    for name in ("INLINE", "GIVEN"):
        given = os.environ[name]
        half = len(given) // 2
        print(f"{words}: cannot charge {card} with {given}", file=sys.stderr)
        print(f"{given[:half]}\n{given[half:]}", file=sys.stderr)
        print(b64encode(f"user:{given}".encode()).decode(), quote(given), file=sys.stderr)
    print(f"{words}: card={card}", file=sys.stderr, flush=True)


@server.tool
def crash(card: str, words: str) -> str:
    """Print the secrets and exit."""
    lament(card, words)
    os._exit(3)


@server.tool
def calm() -> str:
    """Do nothing."""
    return "calm"


if __name__ == "__main__":
    if DOOMED.exists():
        lament(*DOOMED.read_text().split("\n"))
        sys.exit(3)
    server.run(show_banner=False)
