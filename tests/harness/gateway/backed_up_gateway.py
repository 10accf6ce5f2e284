"""Gateway that is backed up, destroyed and restored, and what must be the same afterwards."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from harness.engines.engine import installed
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking
from toolbus_common.contracts import BudgetState, LedgerQuery, LedgerReply
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

SECRET = "tbk_bot_a-secret-of-backup-tests"
PASSPHRASE = "correct horse battery staple"
PRICE = 0.25
CHARGE = 250_000  # millionths of a dollar
_CALLS = "SELECT * FROM events WHERE startsWith(event, 'call.') ORDER BY call_id, event"


class BackedUp(Launched):
    """`toolbus up` with one priced tool, whose directory can be destroyed and restored."""

    def __init__(self, directory: Path, upstream: Upstream, *options: str) -> None:
        super().__init__(directory, *options, TOOLBUS_BACKUP_PASSPHRASE=PASSPHRASE)
        self.upstream = upstream
        self.directory.mkdir(parents=True, exist_ok=True)
        self.configure(
            {
                "servers": {"echo": {"url": upstream.url}},
                "keys": {
                    "bot": {"secret": SECRET, "tools": ["*"], "budget": {"usd": 1000, "per": "day"}}
                },
                "prices": {"echo__say": PRICE},
            }
        )

    def use(self, calls: int) -> None:
        """Make calls, and wait until all are charged and stored."""
        client = self.client(SECRET)
        self.until_listed(client, "echo__say")
        before = self.spent()
        for number in range(calls):
            assert client.call("echo__say", {"text": f"{number}"}).code == ""
        charged = before + calls * CHARGE
        until_blocking(lambda: self.spent() == charged, "the calls are charged")
        self.eventual_rows(
            "SELECT countIf(event = 'call.completed') AS done FROM events",
            lambda rows: rows[0]["done"] >= charged // CHARGE,
        )

    def spent(self) -> int:
        """Return the spending of the key, in millionths of a dollar; -1 before the ledger opens."""
        found = self.budgets()
        return found[0].spent if found and found[0].reserved == 0 else -1

    def budgets(self) -> tuple[BudgetState, ...]:
        """Return the budgets, or none while policy cannot tell them."""

        async def request(bus: Bus) -> tuple[BudgetState, ...]:
            try:
                query = LedgerQuery(customer="default")
                return tuple(
                    (await RequestReply(OPERATOR, bus).request(query, LedgerReply)).budgets
                )
            except ToolbusError:
                return ()

        return self.on_the_bus(request)

    def calls(self) -> list[dict[str, Any]]:
        """Return the stored events of all calls."""
        return self.rows(_CALLS)

    def destroy(self) -> None:
        """Remove the state directory and the configuration."""
        shutil.rmtree(self.state_dir)
        self.config.unlink()

    def succeeds(self, *words: str) -> str:
        """Run a command, and return its output."""
        done = self.toolbus(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def offline(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that needs no installation."""
        return subprocess.run(
            [installed("toolbus"), *words],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def document(self, *words: str) -> Any:
        """Run a command with --json, and return its output."""
        return json.loads(self.succeeds(*words, "--json"))
