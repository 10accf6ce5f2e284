"""Isolation plan of a server's process, and the command that starts the process with it."""

import marshal
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import toolbus_common
import toolbus_executor
from toolbus_common.config import Server
from toolbus_common.config.servers.isolation import Files, Hosts, Limits
from toolbus_common.crypto.key_file import keys_beside
from toolbus_executor.isolation.network.egress_proxy import EgressProxy
from toolbus_executor.isolation.program_paths import is_below
from toolbus_executor.isolation.visible_paths import (
    HOST_SOCKETS,
    VisiblePaths,
    home_of,
    visible_paths_of,
)
from toolbus_executor.settings import Settings

_LAUNCH = str(Path(__file__).with_name("launch.py"))
_PACKAGES = [str(Path(each.__path__[0]).parent) for each in (toolbus_common, toolbus_executor)]
_LIMITS, _FILES = Limits(), Files()
_SETTINGS = "TOOLBUS_"


@dataclass(frozen=True, slots=True)
class Isolation:
    """Isolation of one process.

    The process sees the system paths, the files of its command, `base`, `cwd`, and the paths in
    `files`. Its home and /tmp are private.

    Attributes:
        home: path at which the process sees its private home.
        cache: directory that outlives the process.
        hidden: paths that the process never sees.
        gate: egress proxy, if `network` is a list of hosts.
        token: a directory with a token file, and its path below the home.
        confined: false for the command of a container engine. The engine then isolates the
            container.

    """

    name: str = ""
    limits: Limits = _LIMITS
    files: Files = _FILES
    base: tuple[str, ...] = ()
    cwd: str = ""
    home: str = field(default_factory=lambda: home_of(os.environ))
    cache: str = ""
    network: str = "any"
    namespaces: bool = True
    hidden: tuple[str, ...] = ()
    cgroup: str = ""
    token: tuple[str, str] = ("", "")
    gate: EgressProxy | None = None
    confined: bool = True

    def around(self, command: Sequence[str], handover: int = -1) -> list[str]:
        """Return a command that starts `command` in isolation.

        `handover` is the descriptor for the socket of the egress proxy.
        """
        if self.cache:
            Path(self.cache).mkdir(mode=0o700, parents=True, exist_ok=True)
        plan_fields = {
            **self._configured(),
            "parent": os.getpid(),
            "uid": os.geteuid(),
            "limits": self.limits.model_dump(),
            "handover": handover,
        }
        plan = marshal.dumps(plan_fields).hex()
        return [sys.executable, "-I", "-S", _LAUNCH, *_PACKAGES, plan, *command]

    def places(self, command: Sequence[str], environment: Mapping[str, str]) -> VisiblePaths:
        """Return the paths that a process with this command sees. Raises `IsolationError`."""
        return visible_paths_of(SimpleNamespace(**self._configured()), command, environment)

    def _configured(self) -> dict[str, Any]:
        """Return the fields of the plan that come from the configuration."""
        names = (
            "name", "base", "cwd", "home", "cache", "network", "namespaces", "cgroup", "token",
        )  # fmt: skip
        hidden = self.hidden + ((self.cgroup,) if self.cgroup else ())
        return {
            **{name: getattr(self, name) for name in names},
            "confined": self.confined,
            "read": _expanded(self.files.read),
            "write": _expanded(self.files.write),
            "hidden": hidden,
        }


def isolation_of(declared: Server, settings: Settings, name: str = "") -> Isolation:
    """Return the isolation of a configured server on this machine."""
    if declared.container:
        return Isolation(name=name, namespaces=False, confined=False)
    files = declared.files or _FILES
    opened = _expanded((*files.read, *files.write))
    host_sockets = (
        each_socket
        for each_socket in HOST_SOCKETS
        if not any(is_below(each, each_socket) for each in opened)
    )
    return Isolation(
        name=name,
        limits=declared.limits,
        files=files,
        base=_python_packages() if declared.python else (),
        cwd=str(Path(declared.cwd).expanduser().absolute()) if declared.cwd else "",
        cache=str(settings.state_dir.resolve() / "caches" / name) if name else "",
        network="hosts" if isinstance(declared.network, Hosts) else declared.network,
        namespaces=declared.namespaces,
        hidden=(*secrets_of(settings), *host_sockets),
        cgroup=settings.cgroup,
    )


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Return the paths of Toolbus' secrets: its directories, and all files in its settings."""
    words = (value for name, value in os.environ.items() if name.startswith(_SETTINGS))
    people = settings.people_key_file
    named = [settings.nkey_seed_file, str(people), *map(str, keys_beside(people)), *words]
    files = [Path(each).resolve() for each in named if each and _is_file(each)]
    places = (settings.state_dir.resolve(), settings.encryption.resolve(), *files)
    outside = (each for each in places[1:] if not is_below(str(each), str(places[0])))
    return tuple(dict.fromkeys(map(str, (places[0], *outside))))


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # the setting is not a path
        return False


def _expanded(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(each.rstrip("/") or "/" for each in map(os.path.expanduser, paths))


@cache
def _python_packages() -> tuple[str, ...]:
    """Return the package directories of the Python that runs Toolbus."""
    packages = [each for each in sys.path if each.endswith(("-packages", "-packages/"))]
    return tuple(dict.fromkeys((*packages, *_PACKAGES)))
