"""The key of oauth is replaced in stages on a real bus: every record stays readable."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.audit.events import bus_of
from toolbus_cli.app import built
from toolbus_common.crypto.key_file import accepted_keys, load_key
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import OAUTH
from toolbus_common.settings import Settings
from toolbus_oauth.storage.records import Account, Refresh
from toolbus_oauth.storage.store import Store


@pytest.mark.usefixtures("operator")
async def test_records_stay_readable_when_the_earlier_key_is_removed(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "oauth.key"
    load_key(path)
    async with bus_of("oauth", settings) as bus:
        bucket = await bus.bucket(OAUTH)

        def replica() -> Store:
            """Return the store of a replica that starts now."""
            return Store(bucket, TokenSealer(*accepted_keys(path)))

        def staged(stage: str) -> None:
            words = ["rotate", "oauth", "--stage", stage, "--state-dir", str(tmp_path)]
            assert CliRunner().invoke(built(), words).exit_code == 0

        first = replica()
        await first.put("ann", _account("ann"))
        staged("prepare")
        prepared = replica()
        assert await prepared.reencrypt() == 0, "the key in use is the same"
        staged("switch")
        switched = replica()
        refresh = first.seal.close(Refresh("grant", 1))
        assert switched.seal.open(refresh, Refresh) == Refresh("grant", 1)
        assert await switched.reencrypt() == 1
        await prepared.put("bob", _account("bob"))  # a replica that has not restarted yet
        for name in ("ann", "bob"):
            for each in (prepared, switched):
                assert await each.get(Account, name) == _account(name)
        assert await replica().reencrypt() == 1, "the last one to restart"
        assert await switched.reencrypt() == 0
        staged("finish")
        last = replica()
        assert last.seal.open(refresh, Refresh) is None
        for name in ("ann", "bob"):
            assert await last.get(Account, name) == _account(name)


async def test_records_of_other_keys_and_kinds_are_left_alone(
    settings: Settings, operator: Bus
) -> None:
    assert operator.connected  # it creates the buckets
    async with bus_of("oauth", settings) as bus:
        bucket = await bus.bucket(OAUTH)
        await bucket.put("unknown.1", b"text")
        await Store(bucket, TokenSealer(b"x" * 32)).put("ann", _account("ann"))
        assert await Store(bucket, TokenSealer(b"s" * 32, b"o" * 32)).reencrypt() == 0


def _account(name: str) -> Account:
    return Account(name, "$argon2id$")
