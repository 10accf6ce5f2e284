"""When a server's lists are refreshed."""

from time import time

from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.contracts import Listing, ServerState
from toolbus_executor.servers.refresh_schedule import (
    MIN_SECONDS,
    refresh_pause,
    refreshed_elsewhere,
)
from toolbus_executor.upstreams.listing import LONGEST_TTL


@given(st.integers(0, LONGEST_TTL), st.floats(-1e6, 1e6))
def test_lists_are_refreshed_only_after_they_expire(ttl: int, ago: float) -> None:
    result = Listing(server="s", state=ServerState.READY, ttl_ms=ttl, listed_at=time() - ago)
    pause = refresh_pause(result)
    if ttl == 0:
        assert pause is None, "a TTL of zero must not cause a loop"
    else:
        assert pause is not None
        assert pause >= MIN_SECONDS
        assert pause * 1000 >= (result.remaining_ms(time()) or 0) - 1


def test_a_server_without_a_ttl_is_not_refreshed_on_a_schedule() -> None:
    assert refresh_pause(Listing(server="s", state=ServerState.READY)) is None


def test_another_replicas_listing_is_used_while_it_is_fresh() -> None:
    result = Listing(server="s", state=ServerState.READY, ttl_ms=60_000, listed_at=time())
    assert refreshed_elsewhere(result)
    assert not refreshed_elsewhere(result.model_copy(update={"listed_at": time() - 61}))
    assert not refreshed_elsewhere(result.model_copy(update={"state": ServerState.STALE}))
    assert not refreshed_elsewhere(None)
