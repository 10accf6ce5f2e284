"""The bound of new runs: one principal cannot fill the bucket of all."""

import pytest

from toolbus_common.errors import OverloadedError
from toolbus_policy.flow.quota import RunQuota


def test_a_principal_with_too_many_runs_is_rejected_and_others_are_not() -> None:
    quota = RunQuota(maximum=2)
    quota.take("ann")
    quota.take("ann")
    with pytest.raises(OverloadedError, match="per: key"):
        quota.take("ann")
    quota.take("eve")
