"""Backup and restore of a whole gateway; `make backup` compares more."""

import signal
from pathlib import Path

from harness.gateway.backed_up_gateway import SECRET, BackedUp
from harness.gateway.cluster import Upstream
from harness.waits import until_blocking


def test_a_restored_gateway_has_its_calls_spending_and_keys(
    tmp_path: Path, upstream: Upstream
) -> None:
    gateway = BackedUp(tmp_path / "gateway", upstream)
    target = str(tmp_path / "backup")
    with gateway.running():
        gateway.use(3)
        spent, calls = gateway.spent(), gateway.calls()
    config = ["--config", str(gateway.config)]
    gateway.succeeds("backup", "create", target, *config)
    gateway.destroy()
    gateway.succeeds("backup", "restore", target, *config)
    try:
        gateway.start()
        assert gateway.calls() == calls
        until_blocking(lambda: gateway.spent() == spent, "the ledger has the spending")
        gateway.until_listed(gateway.client(SECRET), "echo__say")
    finally:
        gateway.stop(signal.SIGKILL)
