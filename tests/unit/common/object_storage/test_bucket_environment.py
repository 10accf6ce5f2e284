"""Variables of the environment, which change no upload to a bucket."""

import re
from pathlib import Path

import obstore
import pytest

from harness.audit.bucket_uploads import (
    CREATED,
    S3,
    credentials_of,
    export_to,
    headers_of,
    target,
)
from harness.network.hostile_http import peer
from toolbus_common.object_storage import bucket as bucket_target
from toolbus_common.object_storage.errors import TargetError


def variables(stub: str, prefix: str) -> set[str]:
    """Return the variables that the library reads, as its documentation lists them."""
    folder = Path(obstore.__file__).parent / "_store"
    options = re.findall(r"^    ([a-z0-9_]+): ", (folder / "_client.pyi").read_text(), re.MULTILINE)
    named = re.findall(rf"`({prefix}_[A-Z0-9_]+)`", (folder / stub).read_text())
    return {*named, *(f"{prefix}_{option.upper()}" for option in options)}


async def uploaded(kind: str) -> tuple[bytes, dict[str, str]]:
    """Return the request of an upload, without what differs between two of them."""
    async with peer(CREATED) as (found, url):
        await target(export_to(f"{kind}://events", url, credentials_of(kind))).put("x", b"x")
    (head,) = found.heads
    sent = headers_of(head)
    for name in ("host", "date", "x-amz-date", "x-ms-date"):
        sent.pop(name, None)
    sent["authorization"] = sent["authorization"].partition("Signature=")[0].rpartition(":")[0]
    return head.partition(b"\r\n")[0], sent


@pytest.mark.parametrize("value", ["true", "requester", "foreign"])
@pytest.mark.parametrize(
    ("kind", "stub", "prefix"),
    [("s3", "_aws.pyi", "AWS"), ("gs", "_gcs.pyi", "GOOGLE"), ("az", "_azure.pyi", "AZURE")],
)
async def test_no_variable_of_the_library_changes_an_upload(
    kind: str, stub: str, prefix: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await uploaded(kind)
    found = variables(stub, prefix)
    assert len(found) > 20
    for name in found - set(bucket_target.ENVIRONMENT[kind]):
        monkeypatch.setenv(name, value)
    assert await uploaded(kind) == expected


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind, names in bucket_target.ENVIRONMENT.items() for name in names),
        ("s3", "AWS_Server_Side_Encryption"),
    ],
)
async def test_a_variable_that_no_option_overrides_is_an_error_that_names_it(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "aws:kms")
    async with peer(CREATED) as (found, url):
        export = export_to(f"{kind}://events", url, credentials_of(kind))
        with pytest.raises(TargetError, match=f"{name} is set .* unset it"):
            await target(export).put("x", b"x")
    assert found.heads == []


async def test_settings_that_the_library_rejects_are_not_called_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CHECKSUM_ALGORITHM", "credential")
    monkeypatch.setattr(bucket_target, "ENVIRONMENT", {"s3": ()})
    async with peer(CREATED) as (_, url):
        with pytest.raises(TargetError, match="its settings are not valid"):
            await target(export_to("s3://events", url, S3)).put("x", b"x")
