"""Key services: a key unwraps what it wrapped, and errors reveal no key."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.keyvault.keys.crypto import CryptographyClient

from harness.builders.azure import SignedIn
from harness.oauth.certificates import Authority
from harness.receivers.key_services import KeyServices
from harness.receivers.secret_stores import ROLE, ROLE_SECRET
from toolbus_common.secrets import SecretError
from toolbus_common.secrets.key_service import KeyService
from toolbus_common.secrets.stores.aws import AmazonKeys
from toolbus_common.secrets.stores.azure import AzureKeys
from toolbus_common.secrets.stores.gcp import GoogleKeys
from toolbus_common.secrets.stores.vault import HashiCorpKeys

KEY = os.urandom(32)
RING = "projects/p/locations/global/keyRings/r/cryptoKeys"


def check_key_service(service: KeyService, path: str, other: str, missing: str, name: str) -> None:
    """Check wrap, unwrap and the errors of a key service."""
    wrapped = service.wrap(path, KEY)
    assert KEY not in wrapped
    assert service.wrap(path, KEY) != wrapped
    assert service.unwrap(path, wrapped) == KEY
    for deed, key, what in ((service.unwrap, other, wrapped), (service.wrap, missing, KEY)):
        with pytest.raises(SecretError) as caught:
            deed(key, what)
        assert name in str(caught.value)
        assert KEY.hex() not in str(caught.value)


def test_vaults_transit_engine_wraps_after_sign_in() -> None:
    with KeyServices() as services:
        services.add("toolbus", "other")
        url = f"http://127.0.0.1:{services.port}"
        variables = {"VAULT_ADDR": url, "VAULT_ROLE_ID": ROLE, "VAULT_SECRET_ID": ROLE_SECRET}
        vault = HashiCorpKeys(variables)
        check_key_service(vault, "transit/toolbus", "transit/other", "transit/no", "Vault")
        services.tokens[:] = ["another"]
        assert vault.unwrap("transit/toolbus", vault.wrap("transit/toolbus", KEY)) == KEY
        with pytest.raises(SecretError, match="mount/path"):
            vault.wrap("transit/../sys", KEY)


@contextmanager
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a client of the KMS that moto simulates."""
    import boto3  # noqa: PLC0415 - only this test waits for these to load
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        variables = {
            "ENDPOINT_URL": f"http://{host}:{port}", "DEFAULT_REGION": "eu-west-1",
            "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b",
        }  # fmt: skip
        for name, value in variables.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        client = boto3.client("kms")
        yield client
        client.close()
    finally:
        server.stop()


def test_aws_wraps_with_a_key_by_its_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    with aws(monkeypatch) as client:
        for name in ("toolbus", "other"):
            made = client.create_key()["KeyMetadata"]["KeyId"]
            client.create_alias(AliasName=f"alias/{name}", TargetKeyId=made)
        check_key_service(AmazonKeys(), "alias/toolbus", "alias/other", "alias/no", "AWS")


def test_google_wraps_with_a_key_of_a_ring() -> None:
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - slow to load
    from google.cloud import kms  # noqa: PLC0415

    with KeyServices(tokens=[""]) as services:
        services.add(f"{RING}/toolbus", f"{RING}/other")
        client_of = kms.KeyManagementServiceClient
        transport = client_of.get_transport_class("rest")(
            host=f"127.0.0.1:{services.port}",
            url_scheme="http",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        )
        with client_of(transport=transport) as client:
            google = GoogleKeys(client)
            check_key_service(google, f"{RING}/toolbus", f"{RING}/other", f"{RING}/no", "Google")
            with pytest.raises(SecretError, match="malformed"):
                google.wrap("projects/p", KEY)


def test_azure_wraps_with_a_version_and_unwraps_with_the_same(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.vouched("localhost")
    with KeyServices(tokens=["azure-token"], certificate=certificate) as services:
        services.add("toolbus")

        def client(_vault: str, key: str) -> CryptographyClient:
            url = f"https://localhost:{services.port}/keys/{key}"
            options = {"verify_challenge_resource": False, "connection_verify": authority.ca}
            credential: Any = SignedIn()
            return CryptographyClient(url, credential, **options)

        azure = AzureKeys(client)
        check_key_service(azure, "own-vault/toolbus", "own-vault/other", "own-vault/no", "Azure")
        for path in ("evil.example/x", "v/../x", "x"):
            with pytest.raises(SecretError, match="malformed"):
                azure.wrap(path, KEY)
        with pytest.raises(SecretError, match="not wrapped"):
            azure.unwrap("own-vault/toolbus", b"/../secrets/x.more")
