"""Parts of a gateway killed under load: every call has one outcome and one charge.

`make bench-durability` does the same for every part, with twenty kills each.
"""

from collections.abc import Iterator

import pytest

from harness.gateway.kill_campaign import MID_INSERT, KillCampaign


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillCampaign]:
    """Run a gateway with short call timeouts, so that lost calls get their outcome soon."""
    made = KillCampaign(
        tmp_path_factory.mktemp("killing"), 40,
        TOOLBUS_CALL_TIMEOUT="3", TOOLBUS_OUTCOME_GRACE="1",
    )  # fmt: skip
    with made.running(again=4.0):
        yield made


@pytest.mark.parametrize(("victim", "kills"), [(MID_INSERT, 1), ("executor", 2)])
def test_what_is_killed_loses_and_doubles_nothing(
    killing: KillCampaign, victim: str, kills: int
) -> None:
    found = killing.kill(victim, kills, (0.2, 0.5))
    assert found.clean, found
    assert found.kills == kills, found
    assert found.answered > 0, found
