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
def test_lists_are_never_listed_anew_before_they_are_old_nor_all_the_time(
    ttl: int, ago: float
) -> None:
    result = Listing(server="s", state=ServerState.READY, ttl_ms=ttl, listed_at=time() - ago)
    pause = refresh_pause(result)
    if ttl == 0:
        assert pause is None, "nobody asked to be asked for ever"
    else:
        assert pause is not None
        assert pause >= MIN_SECONDS
        assert pause * 1000 >= (result.remaining_ms(time()) or 0) - 1


def test_a_server_that_says_nothing_of_time_is_listed_when_something_happens() -> None:
    assert refresh_pause(Listing(server="s", state=ServerState.READY)) is None


def test_what_another_replica_listed_is_taken_while_it_is_good() -> None:
    result = Listing(server="s", state=ServerState.READY, ttl_ms=60_000, listed_at=time())
    assert refreshed_elsewhere(result)
    assert not refreshed_elsewhere(result.model_copy(update={"listed_at": time() - 61}))
    assert not refreshed_elsewhere(result.model_copy(update={"state": ServerState.STALE}))
    assert not refreshed_elsewhere(None)
