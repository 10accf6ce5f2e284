"""Streams, consumers and buckets: declared here alone, laid down by one idempotent command."""

from dataclasses import dataclass

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
)
from nats.js.errors import NotFoundError

from toolbus_common.contracts.events.base import EVERY_EVENT, POSTED
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import watched

DECLARATION = "declaration"  # the whole configuration file, as one entry
ORIGIN = "origin"  # where the declaration came from, and which of its secrets were made here
KEY_PREFIX = "key."  # keys made, changed or revoked one by one; they win over declared ones
ADMIN_PREFIX = "admin."  # admin keys likewise

EVENTS = "EVENTS"
CONFIG = "tb_config"  # declared configuration and keys: written by operators and policy
CATALOGUE = "tb_catalogue"  # servers and their tools: written by executor
PINS = "tb_pins"  # approved definitions: first ones written by executor, the others by operators
LEASES = "tb_leases"  # who owns a stdio server: written by executor
SESSIONS = "tb_sessions"  # which executor holds a session at a server: written by executor
LEDGER = "tb_ledger"  # the ledger's epochs and how far each has come: written by policy
APPROVALS = "tb_approvals"  # calls that wait for a person: written by policy
TASKS = "tb_tasks"  # those of them that became tasks, and their results: written by policy
OUTCOMES = "tb_outcomes"  # of calls with an idempotency key: by policy, then by who ends them
TOKENS = "tb_tokens"  # who holds which access token: written by oauth
OAUTH = "tb_oauth"  # accounts, clients and grants, sealed: written by oauth
OAUTH_CLIENTS = "tb_oauth_clients"  # those that registered themselves: written by oauth
OAUTH_BRIEF = "tb_oauth_brief"  # what may be used once, and devices that wait: by oauth
CONNECTIONS = "tb_connections"  # tokens for servers, sealed: written by oauth
SEALS = "tb_checkpoints"  # how far each customer's log is sealed: written by audit
EXPORTS = "tb_exports"  # how far each export and each sink has come: written by audit
PEOPLE = "tb_person_keys"  # keys of people in events: by who publishes events; operators shred them
RESULTS = "tb_results"  # an object store: results too large to tell, by codemode and executor

LEASE_SECONDS = 2.0
CLAIM_SECONDS = 3600.0  # how long an executor's claim to a session outlives its last renewal
MOST_CLAIM_BYTES = 64 << 20
BRIEF_SECONDS = 1800.0
MOST_BRIEF_BYTES = 256 << 20
CLIENT_SECONDS = 60 * 86_400.0  # since it was last used
MOST_CLIENT_BYTES = 128 << 20
DAY = 86_400.0
DUPLICATE_SECONDS = 120.0
LAY_SECONDS = 30.0  # for each answer: what is laid down is on disk by then, which may be slow
WEBHOOKS = "webhooks"  # the consumer of what is posted to webhooks
MOST_APPROVAL_BYTES = 256 << 20
MOST_TASK_BYTES = 1 << 30
MOST_OUTCOME_BYTES = 2 << 30
RESULT_SECONDS = 3600.0
MOST_RESULT_BYTES = 2 << 30
# What the rules of a bucket or an object store are in this version, also of those made before it.
_RULES = ("republish", "allow_rollup_hdrs", "deny_purge", "allow_direct", "max_msgs_per_subject")


@dataclass(frozen=True, slots=True)
class Durable:
    """A durable consumer of EVENTS: a service and its subjects, under its name or `name`."""

    service: str
    subjects: tuple[str, ...]
    most_unacknowledged: int
    wait_seconds: float
    name: str = ""

    @property
    def known_as(self) -> str:
        """What the server calls it."""
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
    # On file too: a bucket in memory is gone, not merely empty, when a lone server restarts.
    KeyValueConfig(bucket=LEASES, history=1, storage=StorageType.FILE, ttl=LEASE_SECONDS),
    KeyValueConfig(
        bucket=SESSIONS,
        history=1,
        storage=StorageType.FILE,
        ttl=CLAIM_SECONDS,
        max_bytes=MOST_CLAIM_BYTES,
    ),
    KeyValueConfig(bucket=TOKENS, history=1, storage=StorageType.FILE, ttl=DAY),
    KeyValueConfig(bucket=OAUTH, history=1, storage=StorageType.FILE),
    KeyValueConfig(
        bucket=OAUTH_CLIENTS,
        history=1,
        storage=StorageType.FILE,
        ttl=CLIENT_SECONDS,
        max_bytes=MOST_CLIENT_BYTES,
    ),
    KeyValueConfig(
        bucket=OAUTH_BRIEF,
        history=1,
        storage=StorageType.FILE,
        ttl=BRIEF_SECONDS,
        max_bytes=MOST_BRIEF_BYTES,
    ),
    KeyValueConfig(bucket=CONNECTIONS, history=1, storage=StorageType.FILE),
    KeyValueConfig(bucket=SEALS, history=1, storage=StorageType.FILE),
    KeyValueConfig(bucket=EXPORTS, history=1, storage=StorageType.FILE),
    # One value each: what is shredded must not be there a second time.
    KeyValueConfig(bucket=PEOPLE, history=1, storage=StorageType.FILE),
    KeyValueConfig(bucket=LEDGER, history=5, storage=StorageType.FILE),
    # What policy did not clear away, the server forgets after a day.
    KeyValueConfig(
        bucket=APPROVALS,
        history=1,
        storage=StorageType.FILE,
        ttl=DAY,
        max_bytes=MOST_APPROVAL_BYTES,
    ),
    KeyValueConfig(
        bucket=TASKS, history=1, storage=StorageType.FILE, ttl=DAY, max_bytes=MOST_TASK_BYTES
    ),
    KeyValueConfig(
        bucket=OUTCOMES, history=1, storage=StorageType.FILE, ttl=DAY, max_bytes=MOST_OUTCOME_BYTES
    ),
)
OBJECTS = {
    RESULTS: ObjectStoreConfig(
        ttl=RESULT_SECONDS,
        max_bytes=MOST_RESULT_BYTES,
        storage=StorageType.FILE,
    )
}


async def provision(bus: Bus, *, replicas: int = 1, events_bytes: int = 4 << 30) -> None:
    """Lay down whatever is missing and bring the rest up to date. Safe to run at any time."""
    stream = bus.client.jetstream(timeout=LAY_SECONDS)
    await _lay_stream(stream, _events(replicas, events_bytes))
    for durable in DURABLES:
        await stream.add_consumer(EVENTS, _consumer(durable))
    for bucket in BUCKETS:
        await _lay(stream, _bucket(bucket, replicas))
    for name, objects in OBJECTS.items():
        await _lay(stream, _objects(name, objects, replicas))


def _events(replicas: int, most_bytes: int) -> StreamConfig:
    return StreamConfig(
        name=EVENTS,
        subjects=[EVERY_EVENT],
        storage=StorageType.FILE,
        num_replicas=replicas,
        # A full stream refuses new events, and so new calls: it never forgets old ones to make
        # room.
        discard=DiscardPolicy.NEW,
        max_bytes=most_bytes,
        max_age=14 * DAY,
        duplicate_window=DUPLICATE_SECONDS,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,  # the sealer reads it in its order, and needs no consumer for that
    )


def _consumer(durable: Durable) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=durable.known_as,
        filter_subjects=list(durable.subjects),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=durable.wait_seconds,
        max_ack_pending=durable.most_unacknowledged,
    )


async def _lay_stream(stream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await stream.stream_info(EVENTS)
        await stream.update_stream(config)
    except NotFoundError:
        await stream.add_stream(config)


async def _lay(stream: JetStreamContext, config: StreamConfig) -> None:
    """Make what is missing; have what is there already obey the rules this version depends on."""
    try:
        there = (await stream.stream_info(config.name or "")).config
    except NotFoundError:
        await stream.add_stream(config)
        return
    ruled = there.evolve(**{name: getattr(config, name) for name in _RULES})
    if ruled != there:
        await stream.update_stream(ruled)


def _bucket(bucket: KeyValueConfig, replicas: int) -> StreamConfig:
    """Return a bucket's stream, each change of which the server publishes to those who watch it."""
    return StreamConfig(
        name=f"KV_{bucket.bucket}",
        subjects=[f"$KV.{bucket.bucket}.>"],
        storage=bucket.storage,
        num_replicas=replicas,
        max_msgs_per_subject=bucket.history,
        max_age=bucket.ttl,
        max_bytes=bucket.max_bytes,
        duplicate_window=min(DUPLICATE_SECONDS, bucket.ttl or DUPLICATE_SECONDS),
        discard=DiscardPolicy.NEW,
        # The entry of somebody forgotten is deleted by its number, so that it is written over.
        deny_delete=bucket.bucket != PEOPLE,
        deny_purge=True,
        allow_rollup_hdrs=False,  # whoever may write one entry could purge all of them
        allow_direct=True,
        republish=RePublish(
            src=">", dest=watched(bucket.bucket), headers_only=bucket.bucket == OUTCOMES
        ),
    )


def _objects(name: str, objects: ObjectStoreConfig, replicas: int) -> StreamConfig:
    """Return an object store's stream. What is written again replaces what was there."""
    return StreamConfig(
        name=f"OBJ_{name}",
        subjects=[f"$O.{name}.C.>", f"$O.{name}.M.>"],
        storage=objects.storage,
        num_replicas=replicas,
        max_msgs_per_subject=1,
        max_age=objects.ttl,
        max_bytes=objects.max_bytes,
        discard=DiscardPolicy.NEW,
        deny_purge=True,
        allow_rollup_hdrs=False,
        allow_direct=True,
    )
