"""Installation of `@modelcontextprotocol/server-everything` from npm."""

from pathlib import Path

from harness.packages import npm

PACKAGE = "@modelcontextprotocol/server-everything@2026.8.31"


def install(directory: Path) -> list[str]:
    """Install the server, and return its command line without `stdio` or `streamableHttp`."""
    return [str(npm.NODE), str(npm.installed(PACKAGE, "dist/index.js", directory))]
