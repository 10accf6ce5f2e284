"""No spelling of an address, and no name that means it, leads to where nothing may be called."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.samples.address_spellings import spellings
from harness.samples.url_settings import CALLED, LED_TO, Listener, Tried, counted, lists

MOST = 400


@pytest.fixture
async def seen() -> AsyncIterator[Listener]:
    """Whom nobody may reach."""
    async with Listener().listening() as listener:
        yield listener


@pytest.fixture
async def leader() -> AsyncIterator[Listener]:
    """A server the operator lists, which leads elsewhere."""
    async with Listener().listening() as listener:
        yield listener


def test_the_list_is_long() -> None:
    assert len(set(spellings(1))) > MOST


@pytest.mark.parametrize("name", CALLED)
async def test_no_spelling_is_called(
    name: str, seen: Listener, leader: Listener, tmp_path: Path
) -> None:
    tried = Tried(lists(), leader, tmp_path)
    count = await counted(CALLED[name], spellings(seen.port), tried, seen)
    assert (count.hits, count.through) == (0, [])
    assert count.refused == count.probes


@pytest.mark.parametrize("name", CALLED)
async def test_what_the_operator_lists_is_called(
    name: str, seen: Listener, leader: Listener, tmp_path: Path
) -> None:
    tried = Tried(lists(f"127.0.0.1:{seen.port}"), leader, tmp_path)
    count = await counted(CALLED[name], [seen.url], tried, seen)
    assert count.hits > 0


@pytest.mark.parametrize("name", LED_TO)
async def test_no_server_leads_elsewhere(
    name: str, seen: Listener, leader: Listener, tmp_path: Path
) -> None:
    tried = Tried(lists(f"127.0.0.1:{leader.port}"), leader, tmp_path)
    count = await counted(LED_TO[name], spellings(seen.port)[::8], tried, seen)
    assert (count.hits, count.through) == (0, [])
    assert leader.hits >= count.probes, "each was led"


@pytest.mark.parametrize("name", LED_TO)
async def test_no_server_leads_to_another_that_is_listed(
    name: str, seen: Listener, leader: Listener, tmp_path: Path
) -> None:
    """Nothing is followed at all to another origin: credentials would go along."""
    tried = Tried(lists("127.0.0.0/8"), leader, tmp_path)
    count = await counted(LED_TO[name], [seen.url], tried, seen)
    assert (count.hits, leader.hits > 0) == (0, True)
