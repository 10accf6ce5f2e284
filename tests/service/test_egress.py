"""Egress rules: no spelling of an address and no redirect leads to a forbidden address."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.samples.address_spellings import spellings
from harness.samples.url_settings import CALLED, LED_TO, Listener, Tried, counted, lists

MAX_SPELLINGS = 400


@pytest.fixture
async def forbidden_server() -> AsyncIterator[Listener]:
    """Run the listener that must not be reached."""
    async with Listener().listening() as listener:
        yield listener


@pytest.fixture
async def redirecting_server() -> AsyncIterator[Listener]:
    """Run a listed server that redirects elsewhere."""
    async with Listener().listening() as listener:
        yield listener


def test_the_list_of_spellings_is_long() -> None:
    assert len(set(spellings(1))) > MAX_SPELLINGS


@pytest.mark.parametrize("name", CALLED)
async def test_no_spelling_is_called(
    name: str, forbidden_server: Listener, redirecting_server: Listener, tmp_path: Path
) -> None:
    attempts = Tried(lists(), redirecting_server, tmp_path)
    count = await counted(
        CALLED[name], spellings(forbidden_server.port), attempts, forbidden_server
    )
    assert (count.hits, count.through) == (0, [])
    assert count.refused == count.probes


@pytest.mark.parametrize("name", CALLED)
async def test_a_listed_address_is_called(
    name: str, forbidden_server: Listener, redirecting_server: Listener, tmp_path: Path
) -> None:
    attempts = Tried(lists(f"127.0.0.1:{forbidden_server.port}"), redirecting_server, tmp_path)
    count = await counted(CALLED[name], [forbidden_server.url], attempts, forbidden_server)
    assert count.hits > 0


@pytest.mark.parametrize("name", LED_TO)
async def test_no_server_redirects_elsewhere(
    name: str, forbidden_server: Listener, redirecting_server: Listener, tmp_path: Path
) -> None:
    attempts = Tried(lists(f"127.0.0.1:{redirecting_server.port}"), redirecting_server, tmp_path)
    count = await counted(
        LED_TO[name], spellings(forbidden_server.port)[::8], attempts, forbidden_server
    )
    assert (count.hits, count.through) == (0, [])
    assert redirecting_server.hits >= count.probes, "each was redirected"


@pytest.mark.parametrize("name", LED_TO)
async def test_no_server_redirects_to_another_listed_one(
    name: str, forbidden_server: Listener, redirecting_server: Listener, tmp_path: Path
) -> None:
    """Follow no redirect to another origin: credentials would be sent along."""
    attempts = Tried(lists("127.0.0.0/8"), redirecting_server, tmp_path)
    count = await counted(LED_TO[name], [forbidden_server.url], attempts, forbidden_server)
    assert (count.hits, redirecting_server.hits > 0) == (0, True)
