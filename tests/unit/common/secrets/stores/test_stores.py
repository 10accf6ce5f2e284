"""Secrets by reference: read from their stores, shared, and never revealed by errors."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from azure.keyvault.secrets import SecretClient

from harness.builders.azure import SignedIn
from harness.oauth.certificates import Authority
from harness.receivers.secret_stores import ROLE, ROLE_SECRET, SecretStores
from toolbus_common.secrets import SecretError, Secrets, filled, references_in, stores_of
from toolbus_common.secrets.stores.azure import Azure
from toolbus_common.secrets.stores.gcp import Google
from toolbus_common.secrets.stores.vault import HashiCorp

VALUE = "canary-value-of-a-secret"


class CountingStore:
    """A store of one value that can be unavailable."""

    def __init__(self, value: str) -> None:
        self.value, self.reads, self.away = value, 0, False

    def read(self, path: str) -> str:
        self.reads += 1
        if self.away:
            raise SecretError(f"{path} is away")
        return self.value


async def read(text: str, **stores: Any) -> str:
    return filled(text, await Secrets({**stores_of(os.environ), **stores}).read([text]))


async def test_references_are_replaced_in_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OWN", "one")
    (tmp_path / "two").write_text("two\n")
    (tmp_path / "three").write_text(json.dumps({"user": "a", "password": "three"}))
    text = f"${{env:OWN}} ${{file:{tmp_path}/two}} ${{file:{tmp_path}/three#password}} $OWN"
    assert await read(text) == "one two three $OWN"


def test_a_malformed_reference_is_plain_text() -> None:
    for text in ("$env:A", "${env:}", "${env:A-B}", "${env:A#b}", "${vault:}", "${vault:a b}",
                 "${other:a}", "${vault:a#}", "${vault:a#b#c}"):  # fmt: skip
        assert references_in([text]) == frozenset(), text


@pytest.mark.parametrize(
    ("kept", "field"),
    [(VALUE, "#x"), ("[1]", "#x"), ("{}", "#x"), ('{"x": 1}', "#x"), ('{"x": ""}', "#x"), ("", "")],
)
async def test_a_missing_or_non_text_field_is_reported_without_the_value(
    kept: str, field: str
) -> None:
    with pytest.raises(SecretError, match="vault:a") as caught:
        await read(f"${{vault:a{field}}}", vault=CountingStore(kept))
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize("path", ["/dev/zero", "/no/such", "relative", "/etc", "/proc/self/mem"])
async def test_only_readable_regular_files_are_secrets(path: str) -> None:
    with pytest.raises(SecretError, match=path):
        await read(f"${{file:{path}}}")


async def test_a_pipe_does_not_block_and_a_large_file_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    for name, reason in (("pipe", "not a regular file"), ("large", "larger than")):
        with pytest.raises(SecretError, match=reason):
            await read(f"${{file:{tmp_path}/{name}}}")


async def test_concurrent_readers_of_a_secret_share_one_read() -> None:
    store = CountingStore('{"a": "1", "b": "2"}')
    secrets = Secrets({"vault": store})
    values = await asyncio.gather(
        *(secrets.read([f"${{vault:x#{name}}}"]) for name in "ababab"), secrets.read(["none"])
    )
    assert [list(each.values()) for each in values] == [["1"], ["2"]] * 3 + [[]]
    assert store.reads == 1


async def test_cached_values_outlive_an_unavailable_store_for_a_while() -> None:
    store = CountingStore("v")
    patient, strict = (Secrets({"vault": store}, fresh=0.0, stale=stale) for stale in (60.0, 0.0))
    for secrets in (patient, strict):
        await secrets.read(["${vault:x}"])
    store.away = True
    assert list((await patient.read(["${vault:x}"])).values()) == ["v"]
    with pytest.raises(SecretError, match="x is away"):
        await strict.read(["${vault:x}"])


async def test_waiting_for_a_change_reports_the_change_and_not_the_value() -> None:
    store = CountingStore("before")
    secrets = Secrets({"vault": store}, fresh=0.01)
    waiting = asyncio.create_task(secrets.until_changed(await secrets.read(["${vault:x}"])))
    store.away = True
    seen = store.reads
    while store.reads < seen + 3:
        assert not waiting.done(), "an unavailable store reports no change"
        await asyncio.sleep(0.01)
    store.value, store.away = VALUE, False
    assert await asyncio.wait_for(waiting, 30) == "The secret vault:x changed."


async def test_vault_returns_a_field_after_sign_in_and_again_after_the_token_expired() -> None:
    with SecretStores({"team/app": {"token": VALUE}}) as stores:
        url = f"http://127.0.0.1:{stores.port}"
        variables = {"VAULT_ADDR": url, "VAULT_ROLE_ID": ROLE, "VAULT_SECRET_ID": ROLE_SECRET}
        vault = HashiCorp(variables)
        assert await read("${vault:kv/team/app#token}", vault=vault) == VALUE
        stores.tokens[:] = ["another"]
        assert await read("${vault:kv/team/app#token}", vault=vault) == VALUE
        assert stores.requests.count("/v1/auth/approle/login") == 2


@pytest.mark.parametrize(
    ("path", "reason"),
    [("kv/no/such", "no secret"), ("kv", "mount/path"), ("kv/../sys/seal", "mount/path")],
)
async def test_a_path_unknown_to_vault_is_named(path: str, reason: str) -> None:
    with SecretStores({"team/app": {"token": VALUE}}, ["own"]) as stores:
        vault = HashiCorp({"VAULT_ADDR": f"http://127.0.0.1:{stores.port}", "VAULT_TOKEN": "own"})
        with pytest.raises(SecretError, match=reason):
            await read(f"${{vault:{path}#token}}", vault=vault)


async def test_errors_of_vault_do_not_quote_the_request() -> None:
    with SecretStores({"team/app": {"token": VALUE}}, ["own"]) as stores:
        url = f"http://127.0.0.1:{stores.port}"
        for token, down in (("wrong-canary", False), ("own", True)):
            stores.down = down
            vault = HashiCorp({"VAULT_ADDR": url, "VAULT_TOKEN": token})
            with pytest.raises(SecretError, match="failed to read kv/team/app") as caught:
                await read("${vault:kv/team/app#token}", vault=vault)
            assert "canary" not in str(caught.value)


async def test_aws_returns_the_newest_value_and_names_unknown_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import boto3  # noqa: PLC0415 - only this test waits for these to load
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        variables = {
            "ENDPOINT_URL": f"http://{host}:{port}",
            "DEFAULT_REGION": "eu-west-1",
            "ACCESS_KEY_ID": "a",
            "SECRET_ACCESS_KEY": "b",
        }
        for name, value in variables.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        made = boto3.client("secretsmanager")
        made.create_secret(Name="app", SecretString="old")
        made.put_secret_value(SecretId="app", SecretString=json.dumps({"token": VALUE}))
        made.create_secret(Name="raw", SecretBinary=b"bytes")
        made.close()
        assert await read("${aws:app#token} ${aws:raw}") == f"{VALUE} bytes"
        with pytest.raises(SecretError, match="secret other: ResourceNotFoundException"):
            await read("${aws:other}")
    finally:
        server.stop()


async def test_google_returns_a_version_and_names_unknown_secrets() -> None:
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - slow to load
    from google.cloud import secretmanager_v1 as google  # noqa: PLC0415

    newest, first = (f"projects/p/secrets/s/versions/{each}" for each in ("latest", "1"))
    with SecretStores({newest: VALUE, first: "old"}, [""]) as stores:
        client_of = google.SecretManagerServiceClient
        transport = client_of.get_transport_class("rest")(
            host=f"127.0.0.1:{stores.port}",
            url_scheme="http",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        )
        with client_of(transport=transport) as client:
            template = "${gcp:projects/p/secrets/s} ${gcp:projects/p/secrets/s/versions/1}"
            assert await read(template, gcp=Google(client)) == f"{VALUE} old"
            with pytest.raises(SecretError, match="projects/p/secrets/t: NotFound"):
                await read("${gcp:projects/p/secrets/t}", gcp=Google(client))


async def test_azure_returns_a_secret_after_its_challenge(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    stores = SecretStores(
        {"app": VALUE}, ["azure-token"], certificate=authority.vouched("localhost")
    )
    with stores:
        url = f"https://localhost:{stores.port}"
        credential: Any = SignedIn()
        options = {"verify_challenge_resource": False, "connection_verify": authority.ca}
        with SecretClient(url, credential, **options) as client:
            assert await read("${azure:own-vault/app}", azure=Azure(lambda _: client)) == VALUE
            with pytest.raises(SecretError, match="own-vault/other: ResourceNotFoundError"):
                await read("${azure:own-vault/other}", azure=Azure(lambda _: client))


@pytest.mark.parametrize("path", ["evil.example/x", "v/../x", "a/b/c/d", "x"])
async def test_an_azure_reference_cannot_name_another_host(path: str) -> None:
    with pytest.raises(SecretError, match="malformed"):
        await read(f"${{azure:{path}}}")


async def test_a_store_without_its_library_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hvac", None)
    with pytest.raises(SecretError, match=r"pip install 'toolbus\[vault\]'"):
        await read("${vault:kv/a#b}", vault=HashiCorp({"VAULT_ADDR": "http://127.0.0.1:1"}))
