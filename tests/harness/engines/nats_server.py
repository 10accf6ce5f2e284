"""nats-server with the permissions that Toolbus generates, and a tester in every account."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engines.engine import Engine, installed
from toolbus_common.nats.accounts import STORE
from toolbus_common.nats.permissions import (
    create_seeds,
    new_seed,
    public_key,
    server_configuration,
)

TESTER = "tester"  # a user of tests alone: may do anything, so that a test can begin afresh


class NatsServer(Engine):
    """nats-server with the permissions Toolbus generates, and one more user for the tests."""

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
        """Where and how it is joined."""
        return NatsAt(self.url, self.seeds, self.streams)

    def sync(self, interval: str) -> None:
        """How often it syncs what it keeps to the disk, from its next start on."""
        configuration = json.loads(self._configuration.read_text())
        configuration["jetstream"]["sync_interval"] = interval
        self._configuration.write_text(json.dumps(configuration))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def streams(self) -> Path:
        """The directory of what it keeps, once it keeps something."""
        return self.directory / "store" / "jetstream" / STORE / "streams"

    def copy_seeds(self, state_dir: Path) -> None:
        """Let services of a state directory join this server."""
        shutil.copytree(self.seeds, state_dir / "nkeys", dirs_exist_ok=True)

    def command(self) -> Sequence[str]:
        """Our own installation's binary."""
        return [installed("nats-server"), "--config", str(self._configuration)]


@dataclass(frozen=True)
class NatsAt:
    """A NATS server for this session, and the seeds to join it with (None: it asks for none).

    `streams` is where it keeps them, None where its files are out of reach.
    """

    url: str
    seeds: Path | None
    streams: Path | None = None

    def seed(self, user: str) -> str | None:
        """A user's seed."""
        return (self.seeds / f"{user}.seed").read_text().strip() if self.seeds else None


def seeded_configuration(
    directory: Path, *, host: str, port: int, store_dir: str
) -> dict[str, Any]:
    """Our generated configuration and a tester in every account.

    The seeds are laid down in `directory/nkeys`.
    """
    seeds = directory / "nkeys"
    keys = create_seeds(seeds)
    configuration = server_configuration(keys, host=host, port=port, store_dir=store_dir)
    for name, account in configuration["accounts"].items():
        tester = new_seed()
        (seeds / f"{tester_of(name)}.seed").write_text(tester)
        account["users"].append({"nkey": public_key(tester)})
    return configuration


def tester_of(account: str) -> str:
    """The user of an account that may do there whatever the account may."""
    return TESTER if account == STORE else f"{TESTER}-{account}"
