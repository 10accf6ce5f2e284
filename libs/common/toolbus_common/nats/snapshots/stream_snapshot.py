"""Taking and restoring a snapshot of one stream.

The server sends a compressed archive in chunks, and waits for an acknowledgement of each within
some seconds. The archive is opaque, and only a server can read it.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import IO, Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import StreamInfo
from nats.js.errors import Error as JetStreamError

from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.stream_reader import ORIGINAL_CREATION, created

CHUNK_BYTES = 512 << 10
SECONDS = 60.0  # without a chunk or a reply
_NAMES, _TAKE, _RESTORE = (
    "$JS.API.STREAM.NAMES", "$JS.API.STREAM.SNAPSHOT.", "$JS.API.STREAM.RESTORE.",
)  # fmt: skip


async def streams_of(bus: Bus) -> list[str]:
    """Return the names of all streams. Raises `BusDownError`."""
    names: list[str] = []
    while True:
        reply = await _request(bus.client, _NAMES, {"offset": len(names)})
        names += reply.get("streams") or []
        if len(names) >= reply["total"] or not reply.get("streams"):
            return sorted(names)


async def take(bus: Bus, stream: str, file: IO[bytes]) -> dict[str, Any]:
    """Write a snapshot of a stream to a file; return what its restore needs.

    Raises `BusDownError`.
    """
    client, received = bus.client, asyncio.Queue[Msg]()
    info = await _info(bus, stream)
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=received.put)
    try:
        about = await _request(
            client, f"{_TAKE}{stream}", {"deliver_subject": inbox, "chunk_size": CHUNK_BYTES}
        )
        while True:
            message = await asyncio.wait_for(received.get(), SECONDS)
            if not message.data:
                break
            file.write(message.data)
            if message.reply:
                await client.publish(message.reply)
    except (TimeoutError, NatsError) as error:
        raise _failed(stream, str(error) or "the server sent nothing more") from error
    finally:
        await subscription.unsubscribe()
    if message.headers and message.headers.get("Status", "") >= "400":
        raise _failed(stream, str(message.headers.get("Description", "")))
    config = about["config"]
    if at := created(info):
        config = config | {
            "metadata": {**config.get("metadata", {}), ORIGINAL_CREATION: at.isoformat()}
        }
    return {"config": config, "state": about["state"]}


async def _info(bus: Bus, stream: str) -> StreamInfo:
    try:
        return await bus.client.jetstream().stream_info(stream)
    except (TimeoutError, NatsError, JetStreamError) as error:
        raise _failed(stream, str(error)) from error


async def restore(bus: Bus, about: dict[str, Any], chunks: Iterator[bytes]) -> None:
    """Create a stream from a snapshot. Raises `BusDownError`, also if the stream exists.

    The chunks are read on a thread. None of them is empty.
    """
    client, name = bus.client, about["config"]["name"]
    try:
        started = await _request(client, f"{_RESTORE}{name}", about)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            for begin in range(0, len(chunk), CHUNK_BYTES):
                piece = chunk[begin : begin + CHUNK_BYTES]
                await _checked(client, started["deliver_subject"], piece)
        await _checked(client, started["deliver_subject"], b"")
    except (TimeoutError, NatsError) as error:
        raise _failed(name, str(error)) from error


async def _request(client: Client, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    return await _checked(client, subject, json.dumps(body).encode())


async def _checked(client: Client, subject: str, data: bytes) -> dict[str, Any]:
    """Send a request; return its reply, which is empty for a chunk. Raises `BusDownError`."""
    reply = (await client.request(subject, data, timeout=SECONDS)).data
    found: dict[str, Any] = json.loads(reply) if reply else {}
    if "error" in found:
        raise _failed(subject, str(found["error"].get("description", "")))
    return found


def _failed(what: str, why: str) -> BusDownError:
    return BusDownError(f"NATS cannot copy or restore '{what}' ({why}); check its log and retry.")
