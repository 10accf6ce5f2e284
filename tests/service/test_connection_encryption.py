"""Envelope encryption of connections on a real bus, and its master keys."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from traceback import format_exception

import pytest

from harness.audit.events import bus_of
from harness.receivers.key_services import KeyServices
from harness.receivers.secret_stores import ROLE, ROLE_SECRET
from harness.services.authorization_service import serving
from harness.services.oauth_connections import connection_store
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONNECTIONS
from toolbus_common.secrets import SecretError, Secrets, key_services_of, stores_of
from toolbus_common.secrets.stores.vault import HashiCorpKeys
from toolbus_common.settings import Settings
from toolbus_oauth.settings import Settings as OAuthSettings
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.envelope_encryption import Envelope, reencrypt
from toolbus_oauth.upstreams.connections.master_keys import Masters
from toolbus_oauth.upstreams.connections.records import Connection

WRAPPED = "vault-transit:transit/toolbus"
RECORD = Connection(
    "docs", "ann", "https://docs.test/mcp", "https://far.test", "", "https://far.test/token",
    "", "gateway", "none", "token", 2e9, "again", (), (), 1e9,
)  # fmt: skip


async def test_an_account_that_reuses_a_removed_accounts_name_gets_none_of_its_connections(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        serving(settings, operator, monkeypatch) as server,
        connection_store(settings) as store,
    ):
        await server.account("ann")
        await store.put("docs ann", RECORD)
        assert [row["user"] for row in await server.action("connections")] == ["ann"]
        await server.action("remove_account", "ann")
        assert await server.action("connections") == []


async def test_a_new_master_key_reencrypts_all_records_and_the_old_one_opens_none(
    settings: Settings,
    operator: Bus,  # noqa: ARG001 - it creates the buckets
) -> None:
    old, new = b"o" * 32, b"n" * 32
    async with bus_of("oauth", settings) as bus:
        bucket = await bus.bucket(CONNECTIONS)
        await Store(bucket, Envelope(old)).put("docs ann", RECORD)
        assert await Store(bucket, Envelope(new)).get(Connection, "docs ann") is None
        assert await reencrypt(bucket, Envelope(new, [old])) == 1
        assert await reencrypt(bucket, Envelope(new, [old])) == 0
        assert await Store(bucket, Envelope(new)).get(Connection, "docs ann") == RECORD
        assert await Store(bucket, Envelope(old)).get(Connection, "docs ann") is None


@asynccontextmanager
async def master_keys(settings: Settings, services: KeyServices) -> AsyncIterator[Masters]:
    """Yield the master keys of one replica."""
    url = f"http://127.0.0.1:{services.port}"
    fields = {"VAULT_ADDR": url, "VAULT_ROLE_ID": ROLE, "VAULT_SECRET_ID": ROLE_SECRET}
    async with bus_of("oauth", settings) as bus:
        bucket = await bus.bucket(CONNECTIONS)
        yield Masters(Secrets(stores_of(fields)), key_services_of(fields), bucket)


@pytest.fixture
def services(operator: Bus) -> Iterator[KeyServices]:
    assert operator.connected  # it creates the buckets
    with KeyServices() as services:
        services.add("toolbus")
        yield services


async def test_replicas_that_start_together_share_one_wrapped_master_key(
    settings: Settings, services: KeyServices
) -> None:
    async with (
        master_keys(settings, services) as one,
        master_keys(settings, services) as other,
    ):
        found = await asyncio.gather(*(each.newest(WRAPPED) for each in (one, other) * 3))
        assert len(set(found)) == 1
        assert await other.earlier(WRAPPED) == found[0]
        assert await one.newest(f"{WRAPPED}#2") != found[0]
        stored = [each.value for each in await one.bucket.present()]
        assert len(stored) == 2
        assert not any(found[0] in (value or b"") for value in stored)
        services.keys.clear()
        with pytest.raises(SecretError, match="no key transit/toolbus"):
            await other.newest(WRAPPED)


async def test_an_unwrapped_or_missing_master_key_is_an_error_with_its_fix(
    settings: Settings, services: KeyServices, tmp_path: Path
) -> None:
    (tmp_path / "short").write_text(b64encode(b"short").decode())
    wrong = {
        WRAPPED: "No master key of this vault was wrapped",
        f"file:{tmp_path}/short": "openssl rand -base64 32",
        f"file:{tmp_path}/none": "cannot be read",
        "vault:kv/none#x": "no secret",
    }
    async with master_keys(settings, services) as masters:
        for reference, message in wrong.items():
            with pytest.raises(SecretError, match=message):
                await masters.earlier(reference)
        with pytest.raises(SecretError, match="does not name a known store"):
            await masters.newest("aws-kmss:alias/toolbus")
        with pytest.raises(ValueError, match="There is no key file"):
            await masters.earlier(str(tmp_path / "none"))


async def test_an_error_of_a_key_service_never_quotes_the_key(
    settings: Settings, services: KeyServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def wrap(_service: object, _path: str, key: bytes) -> bytes:
        sent.append(key)
        raise SecretError("Vault failed to wrap.") from RuntimeError(key.hex())

    monkeypatch.setattr(HashiCorpKeys, "wrap", wrap)
    async with master_keys(settings, services) as masters:
        with pytest.raises(SecretError) as caught:
            await masters.newest(WRAPPED)
    assert sent[0].hex() not in "".join(format_exception(caught.value))


async def test_a_master_key_moved_to_a_key_service_keeps_the_connections(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, services: KeyServices
) -> None:
    old = settings.state_dir / "oauth-vault.key"
    async with connection_store(settings) as store:
        await store.put("docs ann", RECORD)
    fields = {"OAUTH_VAULT_KEY": WRAPPED, "OAUTH_EARLIER_VAULTS": str(old)}
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{services.port}")
    monkeypatch.setenv("VAULT_ROLE_ID", ROLE)
    monkeypatch.setenv("VAULT_SECRET_ID", ROLE_SECRET)
    async with serving(settings, operator, monkeypatch, **fields) as server:
        assert [row["user"] for row in await server.action("connections")] == ["ann"]
    old.unlink()
    async with serving(
        settings, operator, monkeypatch, **{**fields, "OAUTH_EARLIER_VAULTS": ""}
    ) as server:
        assert [row["user"] for row in await server.action("connections")] == ["ann"]
    assert not old.exists()
    monkeypatch.setenv("TOOLBUS_OAUTH_VAULT_FILE", str(old))
    with pytest.raises(ValueError, match="both set the master key"):
        OAuthSettings()
