"""Rolling restart under load behind a balancer: no call fails, none is lost or charged twice."""

from pathlib import Path

from harness.gateway.rolling_restart import PRICE, RollingRestart
from harness.waits import until_blocking


def test_no_call_fails_while_every_replica_is_restarted(tmp_path: Path) -> None:
    with RollingRestart(tmp_path, rate=40.0).running() as gateway:
        with gateway.loaded() as load:
            gateway.restart(load)
        assert (dict(load.failed), load.causes, load.wrong) == ({}, [], [])
        executed = gateway.executed(load)
        assert len(executed) == len(set(executed)) == load.made == len(load.succeeded)
        until_blocking(lambda: gateway.recorded() == load.made, "every call is recorded")
        until_blocking(
            lambda: gateway.charged() == (load.made * PRICE, 0), "every call is charged once"
        )
