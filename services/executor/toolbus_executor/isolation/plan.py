"""What a server's process is held to, made of its declaration; and the command that sees to it."""

import marshal
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import toolbus_common
import toolbus_executor
from toolbus_common.declared import Server
from toolbus_common.declared.isolation import Files, Hosts, Limits
from toolbus_executor.isolation.gate import Gate
from toolbus_executor.settings import Settings

_LAUNCH = str(Path(__file__).with_name("launch.py"))
_PACKAGES = [str(Path(each.__path__[0]).parent) for each in (toolbus_common, toolbus_executor)]
_LIMITS = Limits()
# Sockets that are files lead out of any network namespace: to who looks up names for others, or
# runs things for them.
_DOORS = (
    "/run/nscd", "/var/run/nscd", "/run/systemd/resolve", "/run/dbus", "/run/avahi-daemon",
    "/run/docker.sock", "/run/podman", "/run/containerd", "/run/crio",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Isolation:
    """What one process is held to. `files` are paths as they are here; None leaves it all files.

    `gate` judges where it leads, where its `network` is hosts.
    """

    limits: Limits = _LIMITS
    files: Files | None = None
    base: tuple[str, ...] = ()  # what it reads beside them, so that it can begin at all
    network: str = "any"
    namespaces: bool = True
    hidden: tuple[str, ...] = ()
    cgroup: str = ""
    gate: Gate | None = None

    def around(self, command: Sequence[str], hatch: int = -1) -> list[str]:
        """The command that starts this one, isolated; `hatch` leads to the gate."""
        files = self.files and {
            "read": self.files.read,
            "write": self.files.write,
            "base": self.base,
        }
        told = {
            "parent": os.getpid(),
            "limits": self.limits.model_dump(),
            "files": files,
            "network": self.network,
            "namespaces": self.namespaces,
            "hidden": self.hidden + ((self.cgroup,) if self.cgroup else ()),
            "cgroup": self.cgroup,
            "hatch": hatch,
        }
        return [
            sys.executable,
            "-I",
            "-S",
            _LAUNCH,
            *_PACKAGES,
            marshal.dumps(told).hex(),
            *command,
        ]


def isolation_of(declared: Server, settings: Settings) -> Isolation:
    """What a declared server is held to on this machine; the engine's command to little itself."""
    if declared.container:
        return Isolation(namespaces=False)
    files = declared.files
    if files is not None:
        files = Files(
            read=tuple(map(os.path.expanduser, files.read)),
            write=(
                *map(os.path.expanduser, files.write),
                *filter(None, (declared.cwd,)),
            ),
        )
    network = "hosts" if isinstance(declared.network, Hosts) else declared.network
    return Isolation(
        limits=declared.limits,
        files=files,
        base=_base_of(declared),
        network=network,
        namespaces=declared.namespaces,
        hidden=hidden_from(declared.cwd, declared.command, settings)
        + (() if network == "any" else _DOORS),
        cgroup=settings.cgroup,
    )


def hidden_from(cwd: str, command: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Where Toolbus keeps its secrets, unless the server itself lives there."""
    state = settings.state_dir.resolve()
    secrets = [state / "nkeys" if _lives_in(state, cwd, command) else state]
    seed = Path(settings.nkey_seed_file).resolve() if settings.nkey_seed_file else None
    if seed is not None and not seed.is_relative_to(state):
        secrets.append(seed)
    return tuple(map(str, secrets))


def _lives_in(state: Path, cwd: str, command: Sequence[str]) -> bool:
    """Whether anything that it is started with is kept there."""
    places = [Path(cwd or "."), *map(Path, command)]
    return any(place.absolute().is_relative_to(state) for place in places)


def _base_of(declared: Server) -> tuple[str, ...]:
    """Where its program is."""
    if declared.python:
        here = (sys.prefix, sys.base_prefix, *filter(os.path.isabs, sys.path))
        return tuple(dict.fromkeys(filter(os.path.exists, here)))
    found = shutil.which(declared.command[0]) or declared.command[0]
    return tuple(str(Path(each).parent) for each in (found, os.path.realpath(found)))
