"""What a server's process is held to, made of its declaration; and the command that sees to it."""

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
from toolbus_executor.isolation.network.egress_proxy import Gate
from toolbus_executor.isolation.program_paths import is_below
from toolbus_executor.isolation.visible_paths import DOORS, Places, home_of, places_of
from toolbus_executor.settings import Settings

_LAUNCH = str(Path(__file__).with_name("launch.py"))
_PACKAGES = [str(Path(each.__path__[0]).parent) for each in (toolbus_common, toolbus_executor)]
_LIMITS, _FILES = Limits(), Files()
_SETTINGS = "TOOLBUS_"


@dataclass(frozen=True, slots=True)
class Isolation:
    """What one process is held to.

    It sees the system, what its command is made of, `base` and `cwd`, and what `files` names; its
    home, at the path of `home`, and /tmp are its own. `cache` is a directory that is kept for it,
    `hidden` what it sees in no case. `gate` judges where its `network` of hosts leads.
    `token` is a directory with a token, and where below its home the process sees it.
    `confined` is false for an engine's own command, which starts what somebody else confines.
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
    gate: Gate | None = None
    confined: bool = True

    def around(self, command: Sequence[str], hatch: int = -1) -> list[str]:
        """The command that starts this one, isolated; `hatch` leads to the gate."""
        if self.cache:
            Path(self.cache).mkdir(mode=0o700, parents=True, exist_ok=True)
        told = {
            **self._told(),
            "parent": os.getpid(),
            "uid": os.geteuid(),
            "limits": self.limits.model_dump(),
            "hatch": hatch,
        }
        plan = marshal.dumps(told).hex()
        return [sys.executable, "-I", "-S", _LAUNCH, *_PACKAGES, plan, *command]

    def places(self, command: Sequence[str], environment: Mapping[str, str]) -> Places:
        """What it sees, as its supervisor works it out. Raises `CannotBeHeldError`."""
        return places_of(SimpleNamespace(**self._told()), command, environment)

    def _told(self) -> dict[str, Any]:
        """What its supervisor is told of the declaration."""
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
    """What a declared server is held to on this machine; the engine's command to little itself."""
    if declared.container:
        return Isolation(name=name, namespaces=False, confined=False)
    files = declared.files or _FILES
    opened = _expanded((*files.read, *files.write))
    doors = (door for door in DOORS if not any(is_below(each, door) for each in opened))
    return Isolation(
        name=name,
        limits=declared.limits,
        files=files,
        base=_python_packages() if declared.python else (),
        cwd=str(Path(declared.cwd).expanduser().absolute()) if declared.cwd else "",
        cache=str(settings.state_dir.resolve() / "caches" / name) if name else "",
        network="hosts" if isinstance(declared.network, Hosts) else declared.network,
        namespaces=declared.namespaces,
        hidden=(*secrets_of(settings), *doors),
        cgroup=settings.cgroup,
    )


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Where Toolbus keeps its secrets: its state, and whatever file a setting of it names."""
    words = (value for name, value in os.environ.items() if name.startswith(_SETTINGS))
    named = [settings.nkey_seed_file, str(settings.people_key_file), *words]
    files = [Path(each).resolve() for each in named if each and _is_file(each)]
    return tuple(dict.fromkeys(map(str, (settings.state_dir.resolve(), *files))))


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a setting that is no path
        return False


def _expanded(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(each.rstrip("/") or "/" for each in map(os.path.expanduser, paths))


@cache
def _python_packages() -> tuple[str, ...]:
    """Where Toolbus' own Python imports packages from; its prefix is found by its program."""
    packages = [each for each in sys.path if each.endswith(("-packages", "-packages/"))]
    return tuple(dict.fromkeys((*packages, *_PACKAGES)))
