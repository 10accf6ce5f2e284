"""A TCP listener closes each connection that it accepted."""

import asyncio
import gc
import socket
import ssl
import warnings
from pathlib import Path

import pytest

from harness.audit.bucket_uploads import S3, export_to, target
from harness.network.hostile_http import client, peer
from harness.oauth.certificates import Authority
from toolbus_common.object_storage import bucket as bucket_target
from toolbus_common.object_storage.errors import TargetError
from toolbus_common.object_storage.tcp_listener import listening

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())


async def wait_forever(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(8 << 20))  # more than the socket takes
    await asyncio.Event().wait()


async def test_each_connection_is_served_and_then_closed() -> None:
    async with listening(echo) as port:
        for text in (b"a\n", b"b\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(text)
            assert await reader.read() == text
            writer.close()


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_connection_is_closed_with_its_listener_at_each_point_of_its_start(
    turns: int,
    secure: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    context = None
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*Authority(tmp_path).vouched("peer.example"))
    with socket.socket() as peer, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with listening(wait_forever, context=context) as port:
            peer.connect(("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)
        peer.settimeout(60)
        try:
            while peer.recv(1 << 20):
                pass
        except ConnectionResetError:
            pass
        gc.collect()
    assert [str(each.message) for each in caught if each.category is ResourceWarning] == []


async def test_a_bucket_that_is_given_up_at_once_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bucket_target, "SECONDS", 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            async with peer(b"", drips=True) as (_, url):
                with pytest.raises(TargetError, match="it did not respond within 0 s"):
                    await target(export_to("s3://events", url, S3), client()).put("x", b"x")
        gc.collect()
    assert [str(each.message) for each in caught if each.category is ResourceWarning] == []
