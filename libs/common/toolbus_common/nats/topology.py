"""Definition of all streams, consumers and buckets."""

from dataclasses import dataclass

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

from toolbus_common.contracts.events.base import EVERY_EVENT, POSTED
from toolbus_common.nats.kv_bucket import watched

CONFIGURATION = "configuration"  # the whole configuration file, as one entry
ORIGIN = "origin"  # source of the configuration, and names of generated secrets
KEY_PREFIX = "key."  # keys that commands changed; they override configured keys
ADMIN_PREFIX = "admin."  # admin keys that commands changed
HOLD_PREFIX = "hold."  # of legal holds

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
EVENT_STORE = "audit.store"  # the entry of INSTALLATION with the id of the store of events
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


def events_stream(max_bytes: int) -> StreamConfig:
    """Return the stream of events."""
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


def consumer_of(durable: Durable) -> ConsumerConfig:
    """Return the configuration of a durable consumer."""
    return ConsumerConfig(
        durable_name=durable.consumer_name,
        filter_subjects=list(durable.subjects),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=durable.wait_seconds,
        max_ack_pending=durable.max_unacknowledged,
    )


def bucket_stream(bucket: KeyValueConfig) -> StreamConfig:
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


def object_stream(name: str, objects: ObjectStoreConfig) -> StreamConfig:
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
