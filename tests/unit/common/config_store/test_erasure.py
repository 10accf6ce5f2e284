"""How long an erasure waits for replicas that still have the key."""

import pytest

from toolbus_common.config_store import erasure
from toolbus_common.contracts import ServiceStatus
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.topology import PEOPLE


class Behind(RequestReply):
    """One replica that never discards the key. A round takes as long as it may."""

    def __init__(self) -> None:
        self.now = 100.0

    async def request_all(self, seconds: float = 0.4, wanted: object = ()) -> list[ServiceStatus]:
        """Return the status of the replica."""
        assert seconds > 0
        self.now += seconds + (3.0 if wanted else 0.0)  # the services in `wanted` get more time
        status = ServiceStatus(
            service="audit", instance="i", pid=1, ready=True, since=0.0, revisions={PEOPLE: 6}
        )
        return [status]


@pytest.mark.parametrize(("limit", "longest"), [(8.0, 8.0), (5.5, 5.5), (0.0, 3.4), (-2.0, 3.4)])
async def test_an_erasure_waits_for_a_limited_time(
    limit: float, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Behind()
    monkeypatch.setattr(erasure, "monotonic", lambda: replica.now)
    confirmed = await erasure._let_go(replica, 7, limit)
    assert (confirmed, confirmed.complete) == (erasure.Confirmed(0, 1), False)
    assert replica.now - 100.0 == pytest.approx(longest)
