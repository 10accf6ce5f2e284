"""Creation of all streams, consumers and buckets, and changes of existing ones. Idempotent."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import StreamConfig, StreamInfo
from nats.js.errors import BadRequestError, NotFoundError

from toolbus_common.errors import BusDownError, ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import (
    BUCKETS,
    DURABLES,
    EVENTS,
    EVENTS_BYTES,
    OBJECTS,
    bucket_stream,
    consumer_of,
    events_stream,
    object_stream,
)

CREATE_SECONDS = 30.0  # per response; the server writes to disk before it responds
JOIN_SECONDS = 20.0  # in which the servers of a cluster find each other
JOIN_PAUSE = 0.2
_NO_SUITABLE_PEERS = 10005  # error code of the NATS server
# Settings that provisioning also applies to existing streams: buckets and object stores; events.
_RULES = ("republish", "allow_rollup_hdrs", "deny_purge", "allow_direct", "max_msgs_per_subject")
_EVENT_RULES = (
    "subjects", "discard", "max_age", "duplicate_window", "deny_delete", "deny_purge",
    "allow_direct",
)  # fmt: skip
# Streams of builds before ADR 29, which are no longer read, with their names in messages.
_OLDER_STREAMS = {
    "FACTS": 'stream "FACTS"',
    "KV_tb_seals": 'bucket "tb_seals"',
    "KV_tb_people": 'bucket "tb_people"',
}


class OlderStateError(ToolbusError):
    """The NATS server has data of an older build, which this version cannot read."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A stream that provisioning created, changed or left as it was.

    `changes` contains the changed fields with their values before and after. `is_single_copy` means
    that a cluster stores the stream on one of its servers only.
    """

    stream: str
    replicas: int
    max_bytes: int
    created: bool = False
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    is_single_copy: bool = False


async def provision(
    bus: Bus,
    *,
    replicas: int | None = None,
    events_bytes: int | None = None,
    default_events_bytes: int = EVENTS_BYTES,
) -> list[Provisioned]:
    """Create the missing streams, consumers and buckets, and update existing ones. Idempotent.

    `replicas` applies to every stream, and `events_bytes` to the stream of events. Without them,
    existing streams keep what they have. A new stream of events gets `default_events_bytes`, and
    each other new stream gets as many replicas as the stream of events.

    Raises:
        OlderStateError: the server has streams of an older build. Nothing is created.

    """
    stream = bus.client.jetstream(timeout=CREATE_SECONDS)
    await _reject_older_state(stream)
    wanted: dict[str, Any] = {} if replicas is None else {"num_replicas": replicas}
    limits = wanted if events_bytes is None else {**wanted, "max_bytes": events_bytes}
    events = await _provision_stream(
        stream, events_stream(default_events_bytes), _EVENT_RULES, limits
    )
    for durable in DURABLES:
        await stream.add_consumer(EVENTS, consumer_of(durable))
    stores = [
        *(bucket_stream(bucket) for bucket in BUCKETS),
        *(object_stream(name, objects) for name, objects in OBJECTS.items()),
    ]
    found = [events]
    for config in stores:
        new = config.evolve(num_replicas=events.replicas)
        found.append(await _provision_stream(stream, new, _RULES, wanted))
    return found


async def _reject_older_state(stream: JetStreamContext) -> None:
    found: list[str] = []
    for name, shown in _OLDER_STREAMS.items():
        with suppress(NotFoundError):
            await stream.stream_info(name)
            found.append(shown)
    if found:
        raise OlderStateError(
            f"The NATS server stores the {' and the '.join(found)} of an older build of Toolbus, "
            "which this version cannot read. Export the evidence with the old version, then "
            "start with an empty state directory (or, on an external NATS server, with a new "
            "JetStream domain)."
        )


async def _provision_stream(
    stream: JetStreamContext, new: StreamConfig, rules: tuple[str, ...], wanted: dict[str, Any]
) -> Provisioned:
    """Create a stream, or apply `rules` and the `wanted` fields to an existing one."""
    name = new.name or ""
    try:
        there = await stream.stream_info(name)
    except NotFoundError:
        made = await _placed(lambda: stream.add_stream(new.evolve(**wanted)))
        return _provisioned(made, created=True)
    ruled = {rule: getattr(new, rule) for rule in rules} | wanted
    changes = {
        each: (getattr(there.config, each), value)
        for each, value in ruled.items()
        if getattr(there.config, each) != value
    }
    if changes:
        after = there.config.evolve(**ruled)
        there = await _placed(lambda: stream.update_stream(after))
    return _provisioned(there, changes=changes)


async def _placed(change: Callable[[], Awaitable[StreamInfo]]) -> StreamInfo:
    """Make a change and return its result. Retry while too few servers have joined the cluster."""
    give_up = asyncio.get_running_loop().time() + JOIN_SECONDS
    while True:
        try:
            return await change()
        except BadRequestError as error:
            if error.err_code != _NO_SUITABLE_PEERS:
                raise
            if asyncio.get_running_loop().time() > give_up:
                raise BusDownError(
                    "Fewer NATS servers than the streams need are in the cluster; start the "
                    "others, or provision fewer --replicas."
                ) from error
        await asyncio.sleep(JOIN_PAUSE)


def _provisioned(info: StreamInfo, **fields: Any) -> Provisioned:
    replicas = info.config.num_replicas or 1
    clustered = info.cluster is not None and bool(info.cluster.name)
    return Provisioned(
        info.config.name or "",
        replicas,
        info.config.max_bytes or 0,
        is_single_copy=clustered and replicas == 1,
        **fields,
    )
