"""The clients: installation and command, each in its own environment under `.matrix/`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.packages.npm import NODE, NPM

WORKSHOP = Path(__file__).parents[2] / ".matrix"
DRIVERS = Path(__file__).with_name("drivers")
_TESTS = Path(__file__).parents[1]
_INSTALL_SECONDS = 900
_NPM = [str(NODE), str(NPM), "install", "--no-audit", "--no-fund", "--loglevel=error"]


@dataclass(frozen=True)
class Client:
    """A client. `shown` are the packages whose versions are listed; `family` is its protocol."""

    name: str
    driver: str
    environment: str
    packages: tuple[str, ...]
    shown: tuple[str, ...]
    family: str
    flavour: str = ""

    @property
    def directory(self) -> Path:
        """Its environment; variants of one client share it."""
        return WORKSHOP / self.environment

    @property
    def version(self) -> str:
        """The installed version."""
        find = _npm_version if self.environment == "node" else _pip_version
        return ", ".join(f"{package} {find(self, package)}" for package in self.shown)

    def install(self) -> None:
        """Install the client if it is missing."""
        stamp = self.directory / "installed"
        wanted = "\n".join(self.packages)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        if self.environment == "node":
            _execute(*_NPM, "--save-exact", *self.packages, cwd=self.directory)
        else:
            _execute(sys.executable, "-m", "venv", str(self.directory))
            _execute(self.python, "-m", "pip", "install", "--quiet", *self.packages)
        stamp.write_text(wanted)

    @property
    def python(self) -> str:
        """The interpreter."""
        return str(self.directory / "bin" / "python")

    def command(self, given: Mapping[str, object]) -> list[str]:
        """Return the command line of the driver."""
        result = json.dumps(given)
        if self.driver.endswith(".mjs"):
            # Node searches for packages from the program's directory.
            program = shutil.copy(DRIVERS / self.driver, self.directory)
            return [str(NODE), str(program), result]
        python = sys.executable if self.environment == "node" else self.python
        return [python, "-m", f"matrix.drivers.{self.driver}", result]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the driver, without the gateway's and the user's settings."""
        inspector = self.directory / "node_modules/.bin/mcp-inspector"
        return {
            **{name: value for name, value in os.environ.items() if "TOOLBUS" not in name},
            "PYTHONPATH": str(_TESTS),
            "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
            "MATRIX_NODE": str(NODE),
            "MATRIX_INSPECTOR": str(inspector),
            "HOME": str(self.directory),
        }


def _execute(*command: str, cwd: Path | None = None) -> None:
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    subprocess.run(command, cwd=cwd, env=environment, check=True, timeout=_INSTALL_SECONDS)


def _pip_version(client: Client, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run(
        [client.python, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def _npm_version(client: Client, package: str) -> str:
    file = client.directory / "node_modules" / package / "package.json"
    return str(json.loads(file.read_text())["version"])


_SDK1 = ("mcp>=1.30,<2",)
_NODE = ("@modelcontextprotocol/sdk@1.32.2", "@modelcontextprotocol/inspector@2.12.0")
_INSPECTOR = ("@modelcontextprotocol/inspector",)
_MODERN, _LEGACY = "2026-07-28", "2025-11-25"

CLIENTS = (
    Client("Python SDK 2.x", "sdk2", "sdk2", ("mcp>=2.3,<3",), ("mcp",), _MODERN),
    Client("Python SDK 1.x", "sdk1", "sdk1", _SDK1, ("mcp",), _LEGACY),
    Client("Python SDK 1.x, HTTP+SSE", "sdk1", "sdk1", _SDK1, ("mcp",), _LEGACY, "sse"),
    Client(
        "FastMCP 4", "fastmcp4", "fastmcp4", ("fastmcp>=4.1,<5", "fastmcp-tasks>=4.1,<5"),
        ("fastmcp", "fastmcp-tasks", "mcp"), _MODERN,
    ),
    Client(
        "openai-agents", "openai_agents", "openai-agents", ("openai-agents>=0.24",),
        ("openai-agents", "mcp"), _MODERN,
    ),
    Client(
        "langchain-mcp-adapters", "langchain", "langchain", ("langchain-mcp-adapters>=0.3.2",),
        ("langchain-mcp-adapters", "mcp"), _LEGACY,
    ),
    Client(
        "TypeScript SDK v1", "typescript.mjs", "node", _NODE, ("@modelcontextprotocol/sdk",),
        _LEGACY,
    ),
    Client("Inspector CLI, modern", "inspector", "node", _NODE, _INSPECTOR, _MODERN, "modern"),
    Client("Inspector CLI, legacy", "inspector", "node", _NODE, _INSPECTOR, _LEGACY, "legacy"),
)  # fmt: skip
