"""Definition of all streams, consumers and buckets, and their creation by an idempotent command."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    KeyValueConfig,
    ObjectStoreConfig,
    RePublish,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import NotFoundError

from toolbus_common.contracts.events.base import EVERY_EVENT, POSTED
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import watched

CONFIGURATION = "configuration"  # the whole configuration file, as one entry
ORIGIN = "origin"  # source of the configuration, and names of generated secrets
KEY_PREFIX = "key."  # keys that commands changed; they override configured keys
ADMIN_PREFIX = "admin."  # admin keys that commands changed

EVENTS = "EVENTS"
CONFIG = "tb_config"  # configuration and keys: written by operators and policy
CATALOGUE = "tb_catalogue"  # servers and their tools: written by executor
PINS = "tb_pins"  # approved definitions: written by executor (first listing) and operators
LEASES = "tb_leases"  # which executor runs a stdio server: written by executor
SESSIONS = "tb_sessions"  # which executor holds a session at a server: written by executor
LEDGER = "tb_ledger"  # the ledger's generations and the progress of each: written by policy
APPROVALS = "tb_approvals"  # calls that wait for an approval: written by policy
FLOW = "tb_flow"  # what each run has read: written by policy
TASKS = "tb_tasks"  # approvals that became MCP tasks, and their results: written by policy
OUTCOMES = "tb_outcomes"  # outcomes of calls: written by policy, executor and codemode
TOKENS = "tb_tokens"  # the holder of each access token: written by oauth
OAUTH = "tb_oauth"  # encrypted accounts, clients and grants: written by oauth
OAUTH_CLIENTS = "tb_oauth_clients"  # dynamically registered clients: written by oauth
OAUTH_BRIEF = "tb_oauth_brief"  # single-use codes and pending device requests: written by oauth
CONNECTIONS = "tb_connections"  # encrypted tokens for servers: written by oauth
SEALS = "tb_checkpoints"  # the newest checkpoint of each customer: written by audit
EXPORTS = "tb_exports"  # the cursor of each export and sink: written by audit
PEOPLE = "tb_person_keys"  # written by services that publish events; operators delete keys
MODEL_CACHE = "tb_model_cache"  # descriptions of cached model responses: written by executor
MODEL_RESPONSES = "tb_model_responses"  # object store of these responses: written by executor
AGENT_RUNS = "tb_agent_runs"  # runs of agent mode, encrypted: written by codemode
PLACEHOLDERS = "tb_placeholders"  # redacted values: written by policy, executor and codemode
INSTALLATION = "tb_installation"  # fingerprints of shared keys, id of the store: all services
RESULTS = "tb_results"  # object store of large results: written by codemode and executor

LEASE_SECONDS = 2.0
CLAIM_SECONDS = 3600.0  # lifetime of an executor's claim to a session
MAX_CLAIM_BYTES = 64 << 20
BRIEF_SECONDS = 1800.0
MAX_BRIEF_BYTES = 256 << 20
CLIENT_SECONDS = 60 * 86_400.0  # since the client was last used
MAX_CLIENT_BYTES = 128 << 20
DAY = 86_400.0
DUPLICATE_SECONDS = 120.0
CREATE_SECONDS = 30.0  # per response; the server writes to disk before it responds
WEBHOOKS = "webhooks"  # the consumer of events that are posted to webhooks
MAX_APPROVAL_BYTES = 256 << 20
MAX_TASK_BYTES = 1 << 30
MAX_FLOW_BYTES = 256 << 20
EVENTS_BYTES = 32 << 30  # about 15 million calls
MAX_OUTCOME_BYTES = 2 << 30
MAX_RUN_BYTES = 2 << 30
PLACEHOLDER_SECONDS = DAY  # as long as an approval or an agent run can wait
MAX_PLACEHOLDER_BYTES = 256 << 20
RESULT_SECONDS = 3600.0
MAX_RESULT_BYTES = 2 << 30
CACHE_SECONDS = 7 * DAY  # the longest lifetime of a cached model response
MAX_CACHE_BYTES = 128 << 20
MAX_RESPONSE_BYTES = 1 << 30
_EVICTED = frozenset(
    {MODEL_CACHE, MODEL_RESPONSES, PLACEHOLDERS}
)  # full ones delete their oldest entries
_SIZES_ONLY = frozenset({OUTCOMES, AGENT_RUNS, PLACEHOLDERS})  # watchers receive sizes without data
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
class Durable:
    """A durable consumer of EVENTS. Its name is `name`, or the name of the service if empty."""

    service: str
    subjects: tuple[str, ...]
    max_unacknowledged: int
    wait_seconds: float
    name: str = ""

    @property
    def consumer_name(self) -> str:
        """The name of the consumer on the NATS server."""
        return self.name or self.service


DURABLES = (
    Durable("audit", (EVERY_EVENT,), 20_000, 20.0),
    Durable(
        "policy",
        ("tb.event.call.completed.*", "tb.event.call.failed.*", "tb.event.call.extended.*"),
        20_000,
        30.0,
    ),
    Durable("audit", tuple(f"tb.event.{noun}.>" for noun in POSTED), 20_000, 120.0, WEBHOOKS),
)
BUCKETS = (
    KeyValueConfig(bucket=CONFIG, history=10, storage=StorageType.FILE),
    KeyValueConfig(bucket=CATALOGUE, history=1, storage=StorageType.FILE),
    KeyValueConfig(bucket=PINS, history=5, storage=StorageType.FILE),
    # In files too, because a bucket in memory is lost when a single server restarts.
    KeyValueConfig(bucket=LEASES, history=1, storage=StorageType.FILE, ttl=LEASE_SECONDS),
    KeyValueConfig(
        bucket=SESSIONS,
        history=1,
        storage=StorageType.FILE,
        ttl=CLAIM_SECONDS,
        max_bytes=MAX_CLAIM_BYTES,
    ),
    KeyValueConfig(bucket=TOKENS, history=1, storage=StorageType.FILE, ttl=DAY),
    KeyValueConfig(bucket=OAUTH, history=1, storage=StorageType.FILE),
    KeyValueConfig(
        bucket=OAUTH_CLIENTS,
        history=1,
        storage=StorageType.FILE,
        ttl=CLIENT_SECONDS,
        max_bytes=MAX_CLIENT_BYTES,
    ),
    KeyValueConfig(
        bucket=OAUTH_BRIEF,
        history=1,
        storage=StorageType.FILE,
        ttl=BRIEF_SECONDS,
        max_bytes=MAX_BRIEF_BYTES,
    ),
    KeyValueConfig(bucket=CONNECTIONS, history=1, storage=StorageType.FILE),
    KeyValueConfig(bucket=INSTALLATION, history=1, storage=StorageType.FILE),
    KeyValueConfig(bucket=SEALS, history=1, storage=StorageType.FILE),
    KeyValueConfig(bucket=EXPORTS, history=1, storage=StorageType.FILE),
    # Only one value per entry, because a deleted key must not remain as an earlier value.
    KeyValueConfig(bucket=PEOPLE, history=1, storage=StorageType.FILE),
    KeyValueConfig(bucket=LEDGER, history=5, storage=StorageType.FILE),
    # Entries that policy does not delete expire after a day.
    KeyValueConfig(
        bucket=APPROVALS,
        history=1,
        storage=StorageType.FILE,
        ttl=DAY,
        max_bytes=MAX_APPROVAL_BYTES,
    ),
    KeyValueConfig(
        bucket=TASKS, history=1, storage=StorageType.FILE, ttl=DAY, max_bytes=MAX_TASK_BYTES
    ),
    # Entries are renewed while their run goes on. A full bucket rejects calls that read.
    KeyValueConfig(
        bucket=FLOW, history=1, storage=StorageType.FILE, ttl=9 * DAY, max_bytes=MAX_FLOW_BYTES
    ),
    KeyValueConfig(
        bucket=OUTCOMES, history=1, storage=StorageType.FILE, ttl=DAY, max_bytes=MAX_OUTCOME_BYTES
    ),
    KeyValueConfig(
        bucket=MODEL_CACHE,
        history=1,
        storage=StorageType.FILE,
        ttl=CACHE_SECONDS,
        max_bytes=MAX_CACHE_BYTES,
    ),
    KeyValueConfig(
        bucket=AGENT_RUNS, history=1, storage=StorageType.FILE, ttl=DAY, max_bytes=MAX_RUN_BYTES
    ),
    # If it is full, the oldest values are lost: their placeholders are sent as they are.
    KeyValueConfig(
        bucket=PLACEHOLDERS,
        history=1,
        storage=StorageType.FILE,
        ttl=PLACEHOLDER_SECONDS,
        max_bytes=MAX_PLACEHOLDER_BYTES,
    ),
)
OBJECTS = {
    RESULTS: ObjectStoreConfig(
        ttl=RESULT_SECONDS,
        max_bytes=MAX_RESULT_BYTES,
        storage=StorageType.FILE,
    ),
    MODEL_RESPONSES: ObjectStoreConfig(
        ttl=CACHE_SECONDS,
        max_bytes=MAX_RESPONSE_BYTES,
        storage=StorageType.FILE,
    ),
}


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
    other new streams get its replicas.

    Raises:
        OlderStateError: the server has streams of an older build. Nothing is created.

    """
    stream = bus.client.jetstream(timeout=CREATE_SECONDS)
    await _reject_older_state(stream)
    wanted: dict[str, Any] = {} if replicas is None else {"num_replicas": replicas}
    limits = wanted if events_bytes is None else {**wanted, "max_bytes": events_bytes}
    events = await _provision_stream(stream, _events(default_events_bytes), _EVENT_RULES, limits)
    for durable in DURABLES:
        await stream.add_consumer(EVENTS, _consumer(durable))
    stores = [
        *(_bucket(bucket) for bucket in BUCKETS),
        *(_objects(name, objects) for name, objects in OBJECTS.items()),
    ]
    found = [events]
    for config in stores:
        new = config.evolve(num_replicas=events.replicas)
        found.append(await _provision_stream(stream, new, _RULES, wanted))
    return found


def _events(max_bytes: int) -> StreamConfig:
    return StreamConfig(
        name=EVENTS,
        subjects=[EVERY_EVENT],
        storage=StorageType.FILE,
        num_replicas=1,
        # A full stream rejects new events, and therefore new calls. It never deletes old events
        # instead.
        discard=DiscardPolicy.NEW,
        max_bytes=max_bytes,
        max_age=14 * DAY,
        duplicate_window=DUPLICATE_SECONDS,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,  # the log signer reads in stream order without a consumer
    )


def _consumer(durable: Durable) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=durable.consumer_name,
        filter_subjects=list(durable.subjects),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=durable.wait_seconds,
        max_ack_pending=durable.max_unacknowledged,
    )


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
        made = await stream.add_stream(new.evolve(**wanted))
        return _provisioned(made, created=True)
    ruled = {rule: getattr(new, rule) for rule in rules} | wanted
    changes = {
        each: (getattr(there.config, each), value)
        for each, value in ruled.items()
        if getattr(there.config, each) != value
    }
    if changes:
        there = await stream.update_stream(there.config.evolve(**ruled))
    return _provisioned(there, changes=changes)


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


def _bucket(bucket: KeyValueConfig) -> StreamConfig:
    """Return the stream of a bucket. The server republishes each change for watchers."""
    return StreamConfig(
        name=f"KV_{bucket.bucket}",
        subjects=[f"$KV.{bucket.bucket}.>"],
        storage=bucket.storage,
        max_msgs_per_subject=bucket.history,
        max_age=bucket.ttl,
        max_bytes=bucket.max_bytes,
        duplicate_window=min(DUPLICATE_SECONDS, bucket.ttl or DUPLICATE_SECONDS),
        discard=_discard(bucket.bucket),
        # The erasure of a person deletes the key by its sequence number, so that the server
        # overwrites it.
        deny_delete=bucket.bucket != PEOPLE,
        deny_purge=True,
        allow_rollup_hdrs=False,  # with roll-ups, a writer of one entry could purge all of them
        allow_direct=True,
        republish=RePublish(
            src=">", dest=watched(bucket.bucket), headers_only=bucket.bucket in _SIZES_ONLY or None
        ),
    )


def _discard(name: str) -> DiscardPolicy:
    return DiscardPolicy.OLD if name in _EVICTED else DiscardPolicy.NEW


def _objects(name: str, objects: ObjectStoreConfig) -> StreamConfig:
    """Return the stream of an object store. A new object replaces the object of the same name."""
    return StreamConfig(
        name=f"OBJ_{name}",
        subjects=[f"$O.{name}.C.>", f"$O.{name}.M.>"],
        storage=objects.storage,
        max_msgs_per_subject=1,
        max_age=objects.ttl,
        max_bytes=objects.max_bytes,
        discard=_discard(name),
        deny_purge=True,
        allow_rollup_hdrs=False,
        allow_direct=True,
    )
