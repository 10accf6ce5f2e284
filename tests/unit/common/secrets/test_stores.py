"""Secrets by reference: read where they are kept, once for all, and never told in a failure."""

import asyncio
import json
import os
from pathlib import Path
from time import time
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.keyvault.secrets import SecretClient

from harness.certificates import Authority
from harness.secretstores import ROLE, ROLE_SECRET, SecretStores
from toolbus_common.secrets import SecretError, Secrets, filled, references_in, stores_of
from toolbus_common.secrets.stores.azure import Azure
from toolbus_common.secrets.stores.gcp import Google
from toolbus_common.secrets.stores.vault import HashiCorp

VALUE = "canary-value-of-a-secret"


class Counted:
    """A store of one value, which can be away."""

    def __init__(self, value: str) -> None:
        self.value, self.reads, self.away = value, 0, False

    def read(self, path: str) -> str:
        self.reads += 1
        if self.away:
            raise SecretError(f"{path} is away")
        return self.value


async def read(text: str, **stores: Any) -> str:
    return filled(text, await Secrets({**stores_of(os.environ), **stores}).read([text]))


async def test_references_are_filled_in_where_they_stand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OWN", "one")
    (tmp_path / "two").write_text("two\n")
    (tmp_path / "three").write_text(json.dumps({"user": "a", "password": "three"}))
    text = f"${{env:OWN}} ${{file:{tmp_path}/two}} ${{file:{tmp_path}/three#password}} $OWN"
    assert await read(text) == "one two three $OWN"


def test_what_is_almost_a_reference_is_none() -> None:
    for text in ("$env:A", "${env:}", "${env:A-B}", "${env:A#b}", "${vault:}", "${vault:a b}",
                 "${other:a}", "${vault:a#}", "${vault:a#b#c}"):  # fmt: skip
        assert references_in([text]) == frozenset(), text


@pytest.mark.parametrize(
    ("kept", "field"),
    [(VALUE, "#x"), ("[1]", "#x"), ("{}", "#x"), ('{"x": 1}', "#x"), ('{"x": ""}', "#x"), ("", "")],
)
async def test_a_field_that_is_not_there_or_is_no_text_is_told_without_the_value(
    kept: str, field: str
) -> None:
    with pytest.raises(SecretError, match="vault:a") as caught:
        await read(f"${{vault:a{field}}}", vault=Counted(kept))
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize("path", ["/dev/zero", "/no/such", "relative", "/etc", "/proc/self/mem"])
async def test_only_regular_files_that_can_be_read_are_secrets(path: str) -> None:
    with pytest.raises(SecretError, match=path):
        await read(f"${{file:{path}}}")


async def test_a_pipe_stops_nobody_and_a_large_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    for name, reason in (("pipe", "not a regular file"), ("large", "larger than")):
        with pytest.raises(SecretError, match=reason):
            await read(f"${{file:{tmp_path}/{name}}}")


async def test_all_who_refer_to_the_same_wait_for_one_reading() -> None:
    store = Counted('{"a": "1", "b": "2"}')
    secrets = Secrets({"vault": store})
    told = await asyncio.gather(
        *(secrets.read([f"${{vault:x#{name}}}"]) for name in "ababab"), secrets.read(["none"])
    )
    assert [list(each.values()) for each in told] == [["1"], ["2"]] * 3 + [[]]
    assert store.reads == 1


async def test_a_store_that_is_away_leaves_what_was_read_and_not_for_ever() -> None:
    store = Counted("v")
    patient, strict = (Secrets({"vault": store}, fresh=0.0, stale=stale) for stale in (60.0, 0.0))
    for secrets in (patient, strict):
        await secrets.read(["${vault:x}"])
    store.away = True
    assert list((await patient.read(["${vault:x}"])).values()) == ["v"]
    with pytest.raises(SecretError, match="x is away"):
        await strict.read(["${vault:x}"])


async def test_who_waits_for_a_change_hears_of_it_and_not_of_the_value() -> None:
    store = Counted("before")
    secrets = Secrets({"vault": store}, fresh=0.01)
    waiting = asyncio.create_task(secrets.until_changed(await secrets.read(["${vault:x}"])))
    store.away = True
    seen = store.reads
    while store.reads < seen + 3:
        assert not waiting.done(), "a store that is away has changed nothing"
        await asyncio.sleep(0.01)
    store.value, store.away = VALUE, False
    assert await asyncio.wait_for(waiting, 30) == "The secret vault:x changed."


async def test_vault_tells_a_field_to_who_signs_in_and_again_when_the_token_ended() -> None:
    with SecretStores({"team/app": {"token": VALUE}}) as stores:
        url = f"http://127.0.0.1:{stores.port}"
        told = {"VAULT_ADDR": url, "VAULT_ROLE_ID": ROLE, "VAULT_SECRET_ID": ROLE_SECRET}
        vault = HashiCorp(told)
        assert await read("${vault:kv/team/app#token}", vault=vault) == VALUE
        stores.tokens[:] = ["another"]
        assert await read("${vault:kv/team/app#token}", vault=vault) == VALUE
        assert stores.asked.count("/v1/auth/approle/login") == 2


@pytest.mark.parametrize(
    ("path", "reason"),
    [("kv/no/such", "no secret"), ("kv", "mount/path"), ("kv/../sys/seal", "mount/path")],
)
async def test_what_vault_does_not_have_is_named(path: str, reason: str) -> None:
    with SecretStores({"team/app": {"token": VALUE}}, ["own"]) as stores:
        vault = HashiCorp({"VAULT_ADDR": f"http://127.0.0.1:{stores.port}", "VAULT_TOKEN": "own"})
        with pytest.raises(SecretError, match=reason):
            await read(f"${{vault:{path}#token}}", vault=vault)


async def test_vault_refusing_or_away_is_told_without_what_was_sent() -> None:
    with SecretStores({"team/app": {"token": VALUE}}, ["own"]) as stores:
        url = f"http://127.0.0.1:{stores.port}"
        for token, down in (("wrong-canary", False), ("own", True)):
            stores.down = down
            vault = HashiCorp({"VAULT_ADDR": url, "VAULT_TOKEN": token})
            with pytest.raises(SecretError, match="did not read kv/team/app") as caught:
                await read("${vault:kv/team/app#token}", vault=vault)
            assert "canary" not in str(caught.value)


async def test_aws_tells_the_newest_value_and_names_what_it_does_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import boto3  # noqa: PLC0415 - only this test waits for these to load
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        told = {
            "ENDPOINT_URL": f"http://{host}:{port}",
            "DEFAULT_REGION": "eu-west-1",
            "ACCESS_KEY_ID": "a",
            "SECRET_ACCESS_KEY": "b",
        }
        for name, value in told.items():
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


async def test_google_tells_a_version_and_names_what_it_does_not_have() -> None:
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
            told = "${gcp:projects/p/secrets/s} ${gcp:projects/p/secrets/s/versions/1}"
            assert await read(told, gcp=Google(client)) == f"{VALUE} old"
            with pytest.raises(SecretError, match="projects/p/secrets/t: NotFound"):
                await read("${gcp:projects/p/secrets/t}", gcp=Google(client))


class Credential:
    """One that has a token already."""

    def get_token(self, *_customers: str, **_more: Any) -> AccessToken:
        return AccessToken("azure-token", int(time()) + 3600)


async def test_azure_tells_a_secret_after_its_challenge(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    stores = SecretStores(
        {"app": VALUE}, ["azure-token"], certificate=authority.vouched("localhost")
    )
    with stores:
        url = f"https://localhost:{stores.port}"
        credential: Any = Credential()
        options = {"verify_challenge_resource": False, "connection_verify": authority.ca}
        with SecretClient(url, credential, **options) as client:
            assert await read("${azure:own-vault/app}", azure=Azure(lambda _: client)) == VALUE
            with pytest.raises(SecretError, match="own-vault/other: ResourceNotFoundError"):
                await read("${azure:own-vault/other}", azure=Azure(lambda _: client))


@pytest.mark.parametrize("path", ["evil.example/x", "v/../x", "a/b/c/d", "x"])
async def test_azure_is_asked_at_no_other_host(path: str) -> None:
    with pytest.raises(SecretError, match="not of the form"):
        await read(f"${{azure:{path}}}")


async def test_a_store_whose_library_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hvac", None)
    with pytest.raises(SecretError, match=r"pip install 'toolbus\[vault\]'"):
        await read("${vault:kv/a#b}", vault=HashiCorp({"VAULT_ADDR": "http://127.0.0.1:1"}))
