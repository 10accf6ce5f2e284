"""NATS server with the permissions that Toolbus generates, and a tester in every account."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from harness.engines.engine import Engine, installed
from toolbus_common.config.plugins import Point
from toolbus_common.nats.accounts import STORE, plugin_account, with_plugins
from toolbus_common.nats.permissions import (
    create_seeds,
    new_seed,
    public_key,
    server_configuration,
)
from toolbus_common.plugins.subjects import subject_of

PLUGINS = ("probe", "second")  # plugins that can connect, at all points
TESTER = "tester"  # user of tests with all permissions, so that a test can reset the bus


class NatsServer(Engine):
    """A nats-server with the permissions that Toolbus generates, and a user for the tests."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.seeds = directory / "nkeys"
        configuration = seeded_configuration(
            directory, host="127.0.0.1", port=self.port, store_dir=str(directory / "store")
        )
        self._configuration = directory / "nats.conf"
        self._configuration.write_text(json.dumps(configuration))

    @property
    def at(self) -> "NatsAt":
        """The URL and the seeds of this server."""
        return NatsAt(self.url, self.seeds, self.streams)

    def sync(self, interval: str) -> None:
        """Set the sync interval of the JetStream store. It applies from the next start."""
        configuration = json.loads(self._configuration.read_text())
        configuration["jetstream"]["sync_interval"] = interval
        self._configuration.write_text(json.dumps(configuration))

    @property
    def url(self) -> str:
        """The client URL."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def streams(self) -> Path:
        """The directory of the stream files. It exists after the first stream was created."""
        return self.directory / "store" / "jetstream" / STORE / "streams"

    def copy_seeds(self, state_dir: Path) -> None:
        """Copy the seeds into a state directory, so that services of it can connect."""
        shutil.copytree(self.seeds, state_dir / "nkeys", dirs_exist_ok=True)

    def command(self) -> Sequence[str]:
        """Return the command line of the installed nats-server."""
        return [installed("nats-server"), "--config", str(self._configuration)]


@dataclass(frozen=True)
class NatsAt:
    """The address of a NATS server and the seeds for connecting (None: no authentication).

    `streams` is the directory of the stream files; None if the test cannot read it.
    """

    url: str
    seeds: Path | None
    streams: Path | None = None

    def seed(self, user: str) -> str | None:
        """Return the seed of a user."""
        return (self.seeds / f"{user}.seed").read_text().strip() if self.seeds else None


def seeded_configuration(
    directory: Path, *, host: str, port: int, store_dir: str
) -> dict[str, Any]:
    """Return Toolbus's server configuration with an additional tester in every account.

    The seeds are written to `directory/nkeys`.
    """
    seeds = directory / "nkeys"
    keys = create_seeds(seeds, *map(plugin_account, PLUGINS))
    configuration = server_configuration(keys, host=host, port=port, store_dir=store_dir)
    hooks = {name: [subject_of(point, name) for point in get_args(Point)] for name in PLUGINS}
    configuration = with_plugins(configuration, hooks, keys)
    for name, account in configuration["accounts"].items():
        tester = new_seed()
        (seeds / f"{tester_of(name)}.seed").write_text(tester)
        account["users"].append({"nkey": public_key(tester)})
    return configuration


def tester_of(account: str) -> str:
    """Return the user with all permissions in an account."""
    return TESTER if account == STORE else f"{TESTER}-{account}"
