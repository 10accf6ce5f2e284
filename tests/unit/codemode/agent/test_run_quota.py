"""The quota of stored runs: no principal fills the bucket, and expired runs are free again."""

from time import time

import pytest

from toolbus_codemode.agent.run_quota import RunQuota
from toolbus_common.calls.bucket_sizes import Size
from toolbus_common.errors import OverloadedError, RateExceededError
from toolbus_common.nats.topology import DAY


def store(quota: RunQuota, owner: str, run: str, size: int = 10, at: float = 0.0) -> None:
    """Pass both entries of one run."""
    for name in (f"{owner}.{run}.content", f"{owner}.{run}"):
        quota.sizes.apply_change(Size(name, size, at or time()))


def test_a_principal_has_a_limit_of_runs_and_another_has_its_own() -> None:
    quota = RunQuota(maximum=2)
    store(quota, "ann", "1")
    store(quota, "ann", "1")
    quota.check("ann", "bot")
    store(quota, "ann", "2")
    with pytest.raises(RateExceededError, match="'key:bot' has stored 2 agent runs"):
        quota.check("ann", "bot")
    quota.check("bob", "bot")


def test_a_principal_has_a_limit_of_bytes() -> None:
    quota = RunQuota(max_bytes=100)
    store(quota, "ann", "1", 49)
    quota.check("ann", "bot")
    store(quota, "ann", "1", 50)
    with pytest.raises(RateExceededError, match="100 bytes"):
        quota.check("ann", "bot")


def test_all_principals_together_have_a_limit() -> None:
    quota = RunQuota(max_total_bytes=100)
    store(quota, "ann", "1", 50)
    with pytest.raises(OverloadedError, match="is full"):
        quota.check("bob", "bot")


def test_an_expired_run_does_not_count() -> None:
    quota = RunQuota(maximum=1)
    store(quota, "ann", "1", at=time() - DAY - 1)
    quota.check("ann", "bot")
