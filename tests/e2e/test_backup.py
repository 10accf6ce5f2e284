"""Backup and restore of a whole gateway; `make backup` compares more."""

from pathlib import Path

from harness.gateway.backed_up_gateway import SECRET, BackedUp
from harness.gateway.cluster import Upstream


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
    with gateway.running():
        gateway.until_listed(gateway.client(SECRET), "echo__say")
        assert (gateway.spent(), gateway.calls()) == (spent, calls)
        gateway.use(1)
