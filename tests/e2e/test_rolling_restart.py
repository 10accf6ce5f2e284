"""Rolling restarts under load behind a balancer: no call fails, none is lost or charged twice."""

from pathlib import Path

from harness.gateway.family_gateway import start_session
from harness.gateway.rolling_restart import KEY, PRICE, RollingRestart
from harness.waits import until_blocking

STAGES = {"prepare": True, "switch": True, "finish": False}  # and whether an old session goes on


def test_no_call_fails_while_keys_are_replaced_and_every_replica_is_restarted(
    tmp_path: Path,
) -> None:
    with RollingRestart(tmp_path, rate=30.0).running() as gateway:
        files = [gateway.cluster.state_dir / f"{name}.key" for name in ("client-state", "policy")]
        before = [path.read_bytes() for path in files]
        session = start_session(gateway.cluster.client(KEY))
        with gateway.loaded() as load:
            for stage, goes_on in STAGES.items():
                for path in files:
                    gateway.rotate(path.stem, stage)
                gateway.restart(load)
                assert gateway.accepts(session) == goes_on, stage
        after = [path.read_bytes() for path in files]
        assert [old for old, new in zip(before, after, strict=True) if old == new] == []
        assert (dict(load.failed), load.causes, load.wrong) == ({}, [], [])
        executed = gateway.executed(load)
        assert len(executed) == len(set(executed)) == load.made == len(load.succeeded)
        until_blocking(lambda: gateway.recorded() == load.made, "every call is recorded")
        until_blocking(
            lambda: gateway.charged() == (load.made * PRICE, 0), "every call is charged once"
        )
