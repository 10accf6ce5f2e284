"""`@modelcontextprotocol/server-everything`, from npm."""

from pathlib import Path

from harness.packages import npm

PACKAGE = "@modelcontextprotocol/server-everything@2026.8.31"


def install(directory: Path) -> list[str]:
    """The command that runs it; `stdio` or `streamableHttp` is to be added."""
    return [str(npm.NODE), str(npm.installed(PACKAGE, "dist/index.js", directory))]
