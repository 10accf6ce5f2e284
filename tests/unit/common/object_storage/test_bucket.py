"""Uploads to buckets: where the library connects, what it signs, and what errors say."""

import asyncio
import base64
import hmac
import os
import socket
import ssl
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest

from harness.audit.bucket_uploads import (
    AZURE_KEY,
    CREATED,
    S3,
    SIGNER,
    credentials_of,
    export_to,
    headers_of,
    service_account,
    target,
)
from harness.network.hostile_http import AT_LOOPBACK, client, peer
from harness.network.tcp_servers import TURNS, served
from harness.oauth.certificates import Authority
from harness.waits import until
from toolbus_audit.transparency_log.checkpoint_delivery import MAX_CONCURRENT
from toolbus_audit.transparency_log.checkpoint_files import CheckpointFiles
from toolbus_common.egress import Egress, Target
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import Tls
from toolbus_common.object_storage import bucket as bucket_target
from toolbus_common.object_storage.bucket import BucketTarget
from toolbus_common.object_storage.errors import MissingFileError, TargetError
from toolbus_common.object_storage.store_proxy import StoreProxy
from toolbus_common.secrets import Secrets, stores_of

ERROR = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>canary</Message></Error>"
FOUND = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: x\r\n"
    b"Last-Modified: Tue, 24 Nov 2026 09:00:00 GMT\r\n\r\n"
)
PATH = "customer=a%2Eb/a b/c=d/é.txt"


# -- what is sent --------------------------------------------------------------------------------


async def test_a_file_goes_to_a_bucket_of_azure_signed_with_the_key_of_the_account() -> None:
    async with peer(CREATED) as (found, url):
        account = url.replace("peer.example", "acct.blob.example")
        export = export_to("az://events/lake", account, {"account_key": AZURE_KEY})
        await target(export).put(PATH, b"x")
    start, sent = found.heads[0].split(b"\r\n")[0], headers_of(found.heads[0])
    path = "/events/lake/customer=a%252Eb/a%20b/c=d/%C3%A9.txt"
    assert start.replace(b"%3D", b"=") == f"PUT {path} HTTP/1.1".encode()
    assert sent["x-ms-blob-type"] == "BlockBlob"
    resource = start.split(b" ")[1].decode()
    ms = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent) if name.startswith("x-ms-"))
    text = f"PUT\n\n\n1\n\n\n{sent['date']}\n\n\n\n\n\n{ms}/acct{resource}"
    digest = hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), "sha256")
    assert sent["authorization"] == f"SharedKey acct:{base64.b64encode(digest).decode()}"


async def test_a_file_goes_to_a_bucket_of_azure_with_a_shared_access_signature() -> None:
    async with peer(CREATED) as (found, url):
        credentials = {"sas_token": "?sv=2024-11-04&sig=abc%3D", "account_name": "acct"}
        await target(export_to("az://events", url, credentials)).put("x", b"x")
    assert b"PUT /events/x?sv=2024-11-04&sig=abc%3D HTTP/1.1" in found.heads[0]
    assert "authorization" not in headers_of(found.heads[0])


async def test_a_file_goes_to_a_bucket_of_google_with_a_token_of_the_service_account() -> None:
    async with peer(CREATED) as (found, url):
        export = export_to("gs://events/lake", url, {"service_account": service_account()})
        await target(export).put(PATH, b"x")
    assert found.heads[0].startswith(b"PUT /events/lake%2Fcustomer")
    token = headers_of(found.heads[0])["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(
        token, SIGNER.public_key(), algorithms=["RS256"], options={"verify_aud": False}
    )
    assert (claims["iss"], claims["sub"]) == ("a@b.example", "a@b.example")


async def test_a_session_token_and_a_hash_of_the_data_are_signed_for_s3() -> None:
    async with peer(CREATED) as (found, url):
        await target(export_to("s3://events", url, S3)).put("x", b"data")
    sent = headers_of(found.heads[0])
    assert sent["x-amz-security-token"] == "canary-token"
    assert sent["x-amz-content-sha256"] == sha256(b"data").hexdigest()
    assert "x-amz-content-sha256;x-amz-date;x-amz-security-token" in sent["authorization"]
    assert "proxy-authorization" not in sent


async def test_the_environment_changes_neither_endpoint_nor_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_SESSION_TOKEN": "foreign", "AWS_ACCESS_KEY_ID": "foreign",
        "AWS_SKIP_SIGNATURE": "true", "AWS_UNSIGNED_PAYLOAD": "true", "NO_PROXY": "*",
        "AWS_PROXY_EXCLUDES": "*", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AZURE_STORAGE_TOKEN": "foreign", "AZURE_STORAGE_SAS_KEY": "sig=foreign",
        "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9", "AZURE_PROXY_EXCLUDES": "*",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    keys = {"access_key": "AKIA", "secret_key": "x"}
    async with peer(CREATED) as (found, url):
        await target(export_to("s3://events", url, keys)).put("x", b"x")
    sent = headers_of(found.heads[0])
    assert found.heads[0].startswith(b"PUT /events/x HTTP/1.1")
    assert "Credential=AKIA/" in sent["authorization"]
    assert "x-amz-security-token" not in sent
    async with peer(CREATED) as (found, url):
        azure = {"account_key": AZURE_KEY, "account_name": "acct"}
        await target(export_to("az://events", url, azure)).put("x", b"x")
    assert headers_of(found.heads[0])["authorization"].startswith("SharedKey acct:")


# -- where it connects ---------------------------------------------------------------------------


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    meanings = [["127.0.0.1"], ["10.0.0.1"]]

    def rebinding(_target: Target) -> list[str]:
        return meanings.pop(0)

    async with peer(CREATED) as (found, url):
        rebound = HttpClient(CheckedResolver(AT_LOOPBACK, lookup=rebinding))
        bucket = target(export_to("s3://events", url, S3), rebound)
        await bucket.put("x", b"x")
        with pytest.raises(TargetError, match="a private address"):
            await bucket.put("x", b"x")
    assert (len(found.heads), meanings) == (1, [])


async def test_an_address_that_does_not_answer_is_followed_by_the_next() -> None:
    async with peer(CREATED) as (found, url):
        export = export_to("s3://events", url, S3)
        await target(export, client("127.0.0.2", "127.0.0.1")).put("x", b"x")
    assert len(found.heads) == 1


async def test_public_addresses_need_tls() -> None:
    def public(_target: Target) -> list[str]:
        return ["93.184.216.34"]

    careful = HttpClient(CheckedResolver(Egress(), tls_to_public=True, lookup=public))
    export = export_to("s3://events", "http://peer.example", S3)
    with pytest.raises(TargetError, match="use https"):
        await target(export, careful, named=True).put("x", b"x")


async def test_a_redirect_is_not_followed() -> None:
    async with peer() as (other, elsewhere):
        moved = f"HTTP/1.1 307 Moved\r\nContent-Length: 0\r\nLocation: {elsewhere}\r\n\r\n"
        async with peer(moved.encode()) as (_, url):
            with pytest.raises(TargetError, match="it returned status 307"):
                await target(export_to("s3://events", url, S3)).put("x", b"x")
    assert other.heads == []


async def test_tls_is_verified_for_the_name_with_the_operators_authorities(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.vouched("peer.example"))
    async with peer(CREATED, context=context) as (found, url):
        export = export_to("s3://events", url, S3)
        await target(export, client(tls=Tls(extra=authority.ca))).put("x", b"x")
        with pytest.raises(TargetError, match="TOOLBUS_EGRESS_CA"):
            await target(export).put("x", b"x")
        other = export_to("s3://events", url.replace("peer.example", "other.example"), S3)
        with pytest.raises(TargetError, match="certificate is not trusted"):
            await target(other, client(tls=Tls(extra=authority.ca))).put("x", b"x")
    assert len(found.heads) == 1


async def test_the_proxy_rejects_programs_without_its_password_and_other_hosts() -> None:
    async with peer(CREATED) as (found, url):
        authority = url.removeprefix("http://").partition("/")[0]
        proxy = StoreProxy(client().resolver, authority, operator_named=False)
        async with proxy.listening() as own:
            password, _, port = own.removeprefix("http://").partition("@127.0.0.1:")
            basic = base64.b64encode(password.encode()).decode()
            for host, secret in (
                (authority, ""), (authority, "Basic eDp5"), ("other.example:80", f"Basic {basic}")
            ):  # fmt: skip
                reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
                writer.write(f"CONNECT {host} HTTP/1.1\r\n".encode())
                writer.write(f"Proxy-Authorization: {secret}\r\n\r\n".encode())
                reply = await reader.read()
                assert reply[:13] in (b"", b"HTTP/1.1 403 ")
                writer.close()
    assert found.heads == []
    assert "a host other than" in proxy.problem


async def test_a_connection_of_another_program_is_no_problem_of_the_store() -> None:
    proxy = StoreProxy(client().resolver, "peer.example:80", operator_named=False)
    async with proxy.listening() as own:
        port = int(own.rpartition(":")[2])
        for request in (b"nonsense", b"nonsense\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
    assert proxy.problem == ""


# -- what errors say -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(ERROR), ERROR),
            "it returned status 403 (AccessDenied)",
        ),
        (b"HTTP/1.1 503 Slow\r\nContent-Length: 0\r\n\r\n", "it returned status 503"),
        (
            b"nonsense\r\n\r\n",
            "it closed the connection without a response, or its response is not valid HTTP",
        ),
    ],
)
async def test_an_error_contains_the_code_of_the_store_and_nothing_else_of_its_response(
    answer: bytes, reason: str
) -> None:
    async with peer(answer) as (found, url):
        with pytest.raises(TargetError) as caught:
            await target(export_to("s3://events", url, S3)).put("x", b"x")
    assert str(caught.value) == reason
    assert len(found.heads) == 1, "the caller retries, not the library"


@pytest.mark.parametrize("kind", ["s3", "gs", "az"])
async def test_the_reason_does_not_depend_on_words_in_names_of_buckets_and_paths(kind: str) -> None:
    async with peer(b"nonsense\r\n\r\n") as (_, url):
        export = export_to(f"{kind}://credentials/ReadPem", url, credentials_of(kind))
        with pytest.raises(TargetError, match="it closed the connection without a response"):
            await target(export).put("credential/Base64/InvalidCertificate(", b"x")


@pytest.mark.parametrize("resets", [False, True])
async def test_a_response_before_the_end_of_the_upload_is_reported(resets: bool) -> None:  # noqa: FBT001
    async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        if resets:
            linger = struct.pack("ii", 1, 0)
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with served(reject) as port:
        export = export_to("s3://events", f"http://peer.example:{port}", S3)
        for _ in range(5):
            with pytest.raises(TargetError, match="it returned status 413"):
                await target(export).put("x", bytes(4 << 20))


async def test_an_authority_that_was_removed_is_an_error_with_a_fix(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = Tls(extra=authority.ca)
    tls.check()
    os.unlink(authority.ca)  # noqa: PTH108
    async with peer(CREATED) as (found, url):
        with pytest.raises(TargetError, match="TOOLBUS_EGRESS_CA is not a readable PEM file"):
            await target(export_to("s3://events", url, S3), client(tls=tls)).put("x", b"x")
    assert found.heads == []


async def test_the_time_limit_begins_when_a_thread_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_target, "SECONDS", 0.0)
    free = threading.Event()
    with ThreadPoolExecutor(1) as threads, ExitStack() as stack:
        stack.callback(free.set)
        threads.submit(free.wait)
        async with peer(b"", drips=True) as (_, url):
            export = export_to("s3://events", url, S3)
            bucket = BucketTarget(export, client(), Secrets(stores_of({})), lambda: False, threads)
            upload = asyncio.create_task(bucket.put("x", b"x"))
            await until(lambda: threads._work_queue.qsize() == 1)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert not upload.done()
            free.set()
            with pytest.raises(TargetError, match="it did not respond within 0 s"):
                await upload


async def test_checkpoints_have_a_thread_for_each_slot() -> None:
    files = CheckpointFiles(lambda: None, client(), lambda _: True, Secrets(stores_of({})))
    assert files._threads._max_workers == MAX_CONCURRENT
    await files.close()


async def test_an_endless_response_is_ended() -> None:
    endless = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with peer(endless, b"4000\r\n" + b"x" * 0x4000 + b"\r\n") as (found, url):
        with pytest.raises(TargetError, match="is larger than 1048576 bytes"):
            await target(export_to("s3://events", url, S3)).put("x", b"x")
        await found.closed.wait()


async def test_a_store_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_target, "SECONDS", 0.5)
    slow = b"HTTP/1.1 403 No\r\nContent-Length: 99999\r\n\r\n"
    async with peer(slow, drips=True) as (found, url):
        with pytest.raises(TargetError, match="it did not respond within"):
            await target(export_to("s3://events", url, S3)).put("x", b"x")
        await found.closed.wait()


async def test_an_unreachable_store_is_an_error() -> None:
    export = export_to("s3://events", "http://peer.example:9", S3)
    with pytest.raises(TargetError, match=r"it is unreachable \(ConnectionRefusedError\)"):
        await target(export).put("x", b"x")


@pytest.mark.parametrize(
    ("to", "credentials"),
    [
        ("gs://events", {"service_account": "{"}),
        ("gs://events", {"service_account": '{"private_key": "canary"}'}),
        (
            "gs://events",
            {"service_account": service_account().replace("-----BEGIN", "canary")},
        ),
        ("az://events", {"account_key": "not base64!", "account_name": "acct"}),
    ],
)
async def test_invalid_credentials_are_an_error(to: str, credentials: dict[str, Any]) -> None:
    async with peer(CREATED) as (found, url):
        with pytest.raises(TargetError, match="its credentials are not valid; correct them"):
            await target(export_to(to, url, credentials)).put("x", b"x")
    assert found.heads == []


# -- what is downloaded --------------------------------------------------------------------------


async def test_a_file_of_a_bucket_is_downloaded_with_a_signed_request() -> None:
    async with peer(FOUND % 4 + b"data") as (found, url):
        assert await target(export_to("s3://events/lake", url, S3)).get("x", 4) == b"data"
    assert found.heads[0].startswith(b"GET /events/lake/x HTTP/1.1")
    assert "AWS4-HMAC-SHA256" in headers_of(found.heads[0])["authorization"]


async def test_a_file_that_a_bucket_does_not_have_is_missing() -> None:
    async with peer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as (_, url):
        with pytest.raises(MissingFileError, match="does not have this file"):
            await target(export_to("s3://events", url, S3)).get("x", 4)


async def test_a_download_without_end_is_cut_off() -> None:
    async with peer(FOUND % 99_000_000, b"x" * 65536) as (_, url):
        with pytest.raises(TargetError, match="larger than 1048580 bytes"):
            await target(export_to("s3://events", url, S3)).get("x", 4)
