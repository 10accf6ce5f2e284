"""Failed sign-in attempts on a real bus: counted over all replicas."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import time

import pytest

from harness.audit.events import bus_of
from harness.services.authorization_service import PASSWORD, hashed
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import OAUTH, OAUTH_BRIEF
from toolbus_common.settings import Settings
from toolbus_oauth.accounts import local_accounts as accounts
from toolbus_oauth.accounts.local_accounts import (
    FAILURE_SECONDS,
    MAX_FAILURES,
    Accounts,
    SignInError,
)
from toolbus_oauth.storage.records import Account, SignInAttempts
from toolbus_oauth.storage.store import Store

Replica = Callable[[], AbstractAsyncContextManager[Accounts]]


@pytest.fixture
def replica(settings: Settings, operator: Bus) -> Replica:
    """Return a function that creates replicas, each with a connection of its own."""
    assert operator.connected  # it creates the buckets
    seal = TokenSealer(b"s" * 32)

    @asynccontextmanager
    async def start() -> AsyncIterator[Accounts]:
        async with bus_of("oauth", settings) as bus:
            store = Store(await bus.bucket(OAUTH), seal)
            yield Accounts(store, Store(await bus.bucket(OAUTH_BRIEF), seal))

    return start


async def test_concurrent_attempts_at_two_replicas_are_limited_together(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []

    def is_right(_phc: str, password: str) -> bool:
        verified.append(password)
        return False

    monkeypatch.setattr(accounts, "is_password", is_right)
    async with replica() as one, replica() as other:
        guesses = (each.signed_in("ann", str(n), "") for n in range(20) for each in (one, other))
        result = await asyncio.gather(*guesses, return_exceptions=True)
        assert all(isinstance(each, SignInError) for each in result)
        assert len(verified) == MAX_FAILURES
        with pytest.raises(SignInError, match="Too many sign-in attempts"):
            await other.signed_in("ann", "once more", "")


async def test_a_sign_in_at_one_replica_resets_the_count_of_the_other(replica: Replica) -> None:
    async with replica() as one, replica() as other:
        await one.store.put("ann", Account("ann", hashed(PASSWORD)))
        for _ in range(2):
            for _ in range(MAX_FAILURES - 1):
                with pytest.raises(SignInError, match="is wrong"):
                    await one.signed_in("ann", "wrong", "")
            assert (await other.signed_in("ann", PASSWORD, "")).user == "ann"


async def test_old_attempts_expire(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica() as one:
        await one.store.put("ann", Account("ann", hashed(PASSWORD)))
        await one.brief.put("ann", SignInAttempts((time(),) * MAX_FAILURES))
        with pytest.raises(SignInError, match="Too many sign-in attempts"):
            await one.signed_in("ann", PASSWORD, "")
        later = time() + FAILURE_SECONDS
        monkeypatch.setattr(accounts, "time", lambda: later)
        assert (await one.signed_in("ann", PASSWORD, "")).user == "ann"
