"""Toolbus against the servers' own images; `harness.engines.containers` says when they run."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import boto3
import pytest
from pydantic import SecretStr

from harness.audit.exports import Table
from harness.engines import containers
from harness.engines.bus_reset import connect_as_tester, reset_bus
from harness.engines.nats_server import NatsAt
from harness.network.hostile_http import client
from harness.waits import until_async, until_blocking
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.config import Export
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG
from toolbus_common.object_storage.bucket import BucketTarget
from toolbus_common.secrets import Secrets, filled, stores_of
from toolbus_policy.ledger.valkey_store import ValkeyStore


@pytest.mark.containers("nats")
async def test_the_bus_works_on_the_image_of_nats(tmp_path: Path) -> None:
    with containers.nats_container(tmp_path) as url:
        server = NatsAt(url, tmp_path / "nkeys")
        async with connect_as_tester(server) as tester:
            await reset_bus(tester)
        bus = Bus("policy", url, server.seed("policy"))
        await bus.open()
        try:
            assert await (await bus.bucket(CONFIG)).present() == []
        finally:
            await bus.close()


@pytest.mark.containers("valkey")
async def test_the_ledger_works_on_the_image_of_valkey() -> None:
    with containers.valkey_container() as url:
        store = ValkeyStore(url, 10.0)
        try:
            await until_async(store.reachable, "Valkey answers")
            assert await store.lock("acme", "token", 60.0)
            assert not await store.lock("acme", "other", 60.0)
            generation = await store.begin_generation("acme", "token")
            assert await store.open_generation("acme", "token", generation)
            assert (await store.read_state("acme"))[0] == generation
        finally:
            await store.close()


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[ClickHouse]:
    with containers.clickhouse_container() as url:
        address = url.replace(f"toolbus:{containers.PASSWORD}@", "")
        until_blocking(lambda: _status(f"{address}/ping") == 200, "ClickHouse answers")
        store = ClickHouse(AuditSettings(state_dir=tmp_path, clickhouse_url=SecretStr(url)))
        store._write_thread.submit(store._open).result()
        yield store
        store._write_thread.submit(store._close).result()
        store._write_thread.shutdown()
        store._query_thread.shutdown()


@pytest.mark.containers("clickhouse")
async def test_events_are_stored_on_the_image_of_clickhouse(clickhouse: ClickHouse) -> None:
    table = Table(clickhouse)
    await table.keep_intents(1, 2)
    await table.keep_intents(3, customer="bolt")
    rows = await clickhouse.select("SELECT id FROM events ORDER BY id")
    assert [row[0] for row in rows] == sorted(table.ids)


@pytest.mark.containers("minio")
async def test_files_go_to_the_image_of_minio() -> None:
    with containers.minio_container() as url:
        until_blocking(lambda: _status(f"{url}/minio/health/ready") == 200, "MinIO answers")
        keys = {"access_key": "toolbus", "secret_key": containers.PASSWORD}
        s3 = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1",
            aws_access_key_id="toolbus", aws_secret_access_key=containers.PASSWORD,
        )  # fmt: skip
        s3.create_bucket(Bucket="events")
        local = url.replace("localhost", "127.0.0.1")
        export = Export.model_validate(
            {"to": "s3://events/lake", "endpoint": local, "credentials": keys}
        )
        target = BucketTarget(export, client(), Secrets(stores_of({})), lambda: True)
        await target.put("customer=a%2Eb/é.txt", b"x")
        body = s3.get_object(Bucket="events", Key="lake/customer=a%2Eb/é.txt")["Body"]
        assert body.read() == b"x"
        body.close()
        s3.close()


@pytest.mark.containers("keycloak")
def test_the_image_of_keycloak_has_the_metadata_that_sign_in_reads() -> None:
    with containers.keycloak_container() as url:
        where = f"{url}/realms/master/.well-known/openid-configuration"
        until_blocking(lambda: _status(where) == 200, "Keycloak answers")
        with urlopen(where) as answer:
            metadata = json.load(answer)
        assert metadata["issuer"] == f"{url}/realms/master"
        assert "S256" in metadata["code_challenge_methods_supported"]
        form = {
            "grant_type": "password", "client_id": "admin-cli", "username": "admin",
            "password": containers.PASSWORD,
        }  # fmt: skip
        with urlopen(metadata["token_endpoint"], urlencode(form).encode()) as answer:
            assert json.load(answer)["token_type"] == "Bearer"


@pytest.mark.containers("vault")
async def test_a_secret_is_read_from_the_image_of_vault() -> None:
    with containers.vault_container() as url:
        until_blocking(lambda: _status(f"{url}/v1/sys/health") == 200, "Vault answers")
        _put_secret(url)
        secrets = Secrets(stores_of({"VAULT_ADDR": url, "VAULT_TOKEN": containers.PASSWORD}))
        text = "${vault:secret/app#token}"
        assert filled(text, await secrets.read([text])) == "kept"


def _put_secret(url: str) -> None:
    headers = {"X-Vault-Token": containers.PASSWORD, "Content-Type": "application/json"}
    body = json.dumps({"data": {"token": "kept"}}).encode()
    with urlopen(Request(f"{url}/v1/secret/data/app", body, headers)) as answer:
        assert answer.status == 200


def _status(url: str) -> int:
    """Return the status of a URL, 0 if nothing answers."""
    try:
        with urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except OSError:
        return 0
