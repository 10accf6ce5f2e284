"""Buckets as targets of backups: what the environment configures."""

from pathlib import Path

import pytest

from toolbus_cli.backup.bucket_target import VARIABLES, BucketFiles
from toolbus_cli.backup.errors import BackupError


def test_endpoint_and_credentials_of_s3_come_from_the_environment() -> None:
    environment = {
        "AWS_ENDPOINT_URL": "https://s3.example",
        "AWS_REGION": "eu-north-1",
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    place = BucketFiles("s3://backups/2026", environment)._settings
    assert (place.endpoint_url, place.region) == ("https://s3.example", "eu-north-1")
    assert place.credentials == {"access_key": "AKIA", "secret_key": "secret"}
    assert (place.bucket, place.prefix) == ("backups", "2026/")


def test_the_service_account_of_google_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    file.write_text("{}")
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    place = BucketFiles("gs://backups/2026", environment)._settings
    assert place.credentials == {"service_account": "{}"}
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "missing")}
    with pytest.raises(BackupError, match="GOOGLE_APPLICATION_CREDENTIALS names"):
        BucketFiles("gs://backups/2026", environment)


def test_the_endpoint_of_azure_follows_from_the_account() -> None:
    environment = {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}
    place = BucketFiles("az://backups/2026", environment)._settings
    assert place.endpoint_url == "https://acct.blob.core.windows.net"


@pytest.mark.parametrize("kind", VARIABLES)
def test_missing_credentials_are_named_by_their_variables(kind: str) -> None:
    with pytest.raises(BackupError) as found:
        BucketFiles(f"{kind}://backups/2026", {})
    assert all(variable in found.value.message for variable in VARIABLES[kind].values())


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://UPPER/x", "s3://b/../x"])
def test_other_urls_are_refused(url: str) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}
    with pytest.raises(BackupError, match=url):
        BucketFiles(url, environment)
