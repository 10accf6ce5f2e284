"""NATS permissions: each service has one user, and the server enforces its rights."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys

from toolbus_common.contracts import (
    AccessRejected,
    AdminRequest,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRejected,
    ApprovalRequested,
    ApprovalUsed,
    ApprovalWithdrawn,
    ApproverRequest,
    AuditQuery,
    BreakerClosed,
    BreakerOpened,
    CachedResponsesQuery,
    CallAllowed,
    CallCompleted,
    CallDenied,
    CallExtended,
    CallFailed,
    CallReplayed,
    ConfigApplied,
    ConfigChanged,
    ConnectionCreated,
    ConnectionEnded,
    ContextListed,
    ContextMeasured,
    ContextSpent,
    DefinitionApproved,
    DefinitionChanged,
    DefinitionFlagged,
    DefinitionPinned,
    DefinitionRejected,
    Event,
    EventsExpired,
    EventsQuery,
    FlowReset,
    GrantCreated,
    GrantEnded,
    GuardChecksQuery,
    GuardFailed,
    GuardQuery,
    HoldLifted,
    HoldPlaced,
    HookRequest,
    IdentityKeyQuery,
    KeyCreated,
    KeyRevoked,
    LedgerOpened,
    MessageGuarded,
    ModelCachePurged,
    ModelUsed,
    OpenCallsQuery,
    OwnExplainQuery,
    OwnRunsRequest,
    PageRequest,
    PersonErased,
    PurgeCacheRequest,
    Query,
    RunCompleted,
    RunFailed,
    RunsRequest,
    RunStarted,
    ServerConnected,
    ServerDrained,
    ServerFaulted,
    ServerLost,
    ServerReset,
    ServersQuery,
    ServerUndrained,
    SessionsQuery,
    SignInDenied,
    SignInLinkQuery,
    SpendingQuery,
    StatusQuery,
    TokenQuery,
    UnresolvedCallsQuery,
    UpstreamTokenQuery,
    WitnessContradicted,
)
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.crypto.key_file import create_key
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.nats.accounts import Rights, accounts, permissions_of
from toolbus_common.nats.connection import LARGEST_MESSAGE
from toolbus_common.nats.kv_bucket import watched
from toolbus_common.nats.topology import (
    ADMIN_PREFIX,
    AGENT_RUNS,
    APPROVALS,
    CATALOGUE,
    CONFIG,
    CONFIGURATION,
    CONNECTIONS,
    DURABLES,
    EVENTS,
    EXPORTS,
    FLOW,
    HOLD_PREFIX,
    INSTALLATION,
    KEY_PREFIX,
    LEASES,
    LEDGER,
    MODEL_CACHE,
    MODEL_RESPONSES,
    OAUTH,
    OAUTH_BRIEF,
    OAUTH_CLIENTS,
    ORIGIN,
    OUTCOMES,
    PEOPLE,
    PINS,
    PLACEHOLDERS,
    RESULTS,
    SEALS,
    SESSIONS,
    TASKS,
    TOKENS,
)

OPERATOR = "operator"
_PUBLISHED_BY_OPERATORS = (
    KeyCreated, KeyRevoked, ConfigApplied, ConfigChanged, DefinitionApproved, DefinitionRejected,
    ServerDrained, ServerUndrained, ServerReset, PersonErased, HoldPlaced, HoldLifted,
)  # fmt: skip
# Entries that the administration API changes; operators write the others.
_CONFIGURED = (CONFIGURATION, ORIGIN, f"{KEY_PREFIX}>", f"{ADMIN_PREFIX}>", f"{HOLD_PREFIX}>")
_LIVE = tuple(f"tb.event.call.{end}.*" for end in ("allowed", "denied", "completed", "failed"))
# Only executor may query upstream tokens and the key that signs the caller's identity.
_NOT_QUERIED_BY_OPERATORS = (UpstreamTokenQuery, IdentityKeyQuery)


@dataclass(frozen=True, slots=True)
class _Service:
    name: str
    publishes_events: tuple[type[Event], ...] = ()
    publishes: tuple[str, ...] = ()
    subscribes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()  # buckets
    writes: tuple[str, ...] = ()  # buckets
    never_subscribes: tuple[str, ...] = ()
    queries: tuple[type[Query], ...] = ()
    asks_plugins: tuple[str, ...] = ()  # at these points
    ends_calls: bool = False  # it stores outcomes of calls, but may not read those of others

    def rights(self) -> Rights:
        """Return the rights of this service: exactly the subjects that the service needs."""
        publish = [f"tb.event.{event.NAME}.*" for event in self.publishes_events]
        publish += [*self.publishes, *(query.SUBJECT for query in self.queries)]
        publish += [hooks_at(point) for point in self.asks_plugins]
        publish += [f"_INBOX.{other}.>" for other in _requesters(self.name)]
        publish.append(f"$KV.{INSTALLATION}.{self.name}.*")
        for bucket in (*self.reads, INSTALLATION):
            publish += _read_subjects(bucket)
        publish += [f"$KV.{bucket}.>" for bucket in self.writes]
        if self.ends_calls:
            publish += [f"$JS.API.STREAM.INFO.KV_{OUTCOMES}", f"$KV.{OUTCOMES}.>"]
        for durable in DURABLES:
            if durable.service == self.name:
                publish += [
                    f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{durable.consumer_name}",
                    f"$JS.ACK.{EVENTS}.{durable.consumer_name}.>",
                ]
        subscribe = [
            f"_INBOX.{self.name}.>",
            f"tb.reply.{self.name}.>",
            f"tb.query.{self.name}.>",
            "tb.query.all.>",
            *(watched(bucket) for bucket in self.reads),
            *self.subscribes,
        ]
        return Rights(tuple(publish), tuple(subscribe), deny_subscribe=self.never_subscribes)


def _read_subjects(bucket: str) -> list[str]:
    """Return the subjects of requests that read a bucket. No such request stores data."""
    stream = f"KV_{bucket}"
    return [
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    ]


def _objects(store: str) -> list[str]:
    """Return the subjects that are necessary to read and write an object store."""
    return [f"$O.{store}.>", f"$JS.API.STREAM.MSG.GET.OBJ_{store}"]


def hooks_at(point: str) -> str:
    """Return the subjects of requests to all plugins at a point, or at all points."""
    return f"{HookRequest.SUBJECT}.{point}.*"


def _requesters(service: str) -> list[str]:
    """Return the users that send queries to a service. Operators query every service.

    Executor also answers for the plugins that are webhooks.
    """
    subjects = (f"tb.query.{service}.", "tb.query.all.")
    requesters = [
        each.name
        for each in _SERVICES
        if any(query.SUBJECT.startswith(subjects) for query in each.queries)
        or (service == "executor" and each.asks_plugins)
    ]
    return sorted({OPERATOR, service, *requesters})


_SERVICES = (
    _Service(
        "ingress",
        publishes_events=(AccessRejected, ContextListed),
        publishes=("tb.call.*", "tb.cancel.*", "tb.session.*", "tb.stream.*", "tb.client.*"),
        subscribes=("tb.notification.*", "tb.session.*", "tb.stream.*", *_LIVE),
        reads=(CONFIG, CATALOGUE, TOKENS),
        queries=(ApproverRequest, AdminRequest, PageRequest, TokenQuery, OwnRunsRequest,
                 SignInLinkQuery, OwnExplainQuery),
    ),
    _Service(
        "policy",
        publishes_events=(
            CallAllowed, CallDenied, CallFailed, CallReplayed, ApprovalRequested, ApprovalGranted,
            ApprovalRejected, ApprovalExpired, ApprovalUsed, ApprovalWithdrawn, LedgerOpened,
            KeyCreated, KeyRevoked, ConfigApplied, ConfigChanged, GuardFailed, FlowReset,
            DefinitionApproved, DefinitionRejected, HoldPlaced, HoldLifted, PersonErased,
        ),
        publishes=(
            "tb.run.*", "tb.reply.>", "tb.cancel.*",
            f"$JS.API.STREAM.INFO.{EVENTS}",  # progress, before counters are rebuilt
            *(f"$JS.API.CONSUMER.INFO.{EVENTS}.{each}" for each in ("audit", "policy")),
            *(f"$KV.{CONFIG}.{entry}" for entry in _CONFIGURED),
            f"$JS.API.DIRECT.GET.{EVENTS}",  # intents of expired reservations, or from the leader
            f"$JS.API.STREAM.MSG.GET.{EVENTS}",
            f"$JS.API.STREAM.MSG.DELETE.KV_{PEOPLE}",  # overwrites the key of an erased person
            f"$JS.API.STREAM.INFO.KV_{PLACEHOLDERS}",  # redacted values; policy does not read them
        ),
        subscribes=("tb.call.*", "tb.cancel.*"),
        reads=(CONFIG, CATALOGUE, LEDGER, APPROVALS, TASKS, OUTCOMES, PEOPLE, TOKENS, FLOW, PINS),
        writes=(LEDGER, APPROVALS, TASKS, OUTCOMES, PEOPLE, FLOW, PLACEHOLDERS, PINS),
        queries=(
            SpendingQuery, OpenCallsQuery, UnresolvedCallsQuery, CachedResponsesQuery,
            PurgeCacheRequest, RunsRequest, GuardQuery, GuardChecksQuery, StatusQuery,
            ServersQuery, SessionsQuery, AuditQuery, EventsQuery,
        ),
        asks_plugins=("*",),
    ),
    _Service(
        "executor",
        publishes_events=(
            CallCompleted, CallFailed, CallExtended, ServerConnected, ServerLost, ServerFaulted,
            BreakerOpened, BreakerClosed, DefinitionPinned, DefinitionChanged, ModelUsed,
            DefinitionFlagged, ModelCachePurged, GuardFailed, MessageGuarded,
        ),
        publishes=(
            "tb.reply.>", "tb.notification.*", "tb.resume.*", *_objects(RESULTS),
            *_objects(MODEL_RESPONSES),
        ),
        subscribes=(
            "tb.run.*", "tb.cancel.*", "tb.resume.*", "tb.client.*", hooks_at("*"),
            subject_of(ConnectionCreated.NAME, "*"),
        ),
        never_subscribes=(f"tb.run.{BUILT_IN}",),  # these calls contain the digest of their key
        reads=(CONFIG, CATALOGUE, LEASES, SESSIONS, PINS, PEOPLE, MODEL_CACHE, PLACEHOLDERS),
        writes=(CATALOGUE, LEASES, SESSIONS, PINS, PEOPLE, MODEL_CACHE, PLACEHOLDERS),
        queries=(UpstreamTokenQuery, IdentityKeyQuery),
        asks_plugins=("*",),
        ends_calls=True,
    ),
    _Service(
        "codemode",
        publishes_events=(
            CallCompleted, CallFailed, CallExtended, ContextSpent, ContextMeasured, RunStarted,
            RunCompleted, RunFailed, GuardFailed,
        ),
        publishes=(
            "tb.call.*", "tb.cancel.*", "tb.reply.>", f"$KV.{CATALOGUE}.{BUILT_IN}",
            *_objects(RESULTS),
        ),
        subscribes=(f"tb.run.{BUILT_IN}", "tb.cancel.*"),
        reads=(CONFIG, CATALOGUE, PEOPLE, TOKENS, AGENT_RUNS, PLACEHOLDERS),
        writes=(PEOPLE, AGENT_RUNS, PLACEHOLDERS),
        queries=(GuardQuery,),
        asks_plugins=("*",),
        ends_calls=True,
    ),
    _Service(
        "audit",
        publishes_events=(EventsExpired, WitnessContradicted, AccessRejected),
        # Audit reads the stream for checkpoints, sinks and backfill, and the progress of the writer
        # for exports.
        publishes=(
            f"$JS.API.STREAM.INFO.{EVENTS}", f"$JS.API.DIRECT.GET.{EVENTS}",
            f"$JS.API.CONSUMER.INFO.{EVENTS}.audit",
        ),
        reads=(CONFIG, SEALS, EXPORTS, PEOPLE),
        writes=(SEALS, EXPORTS),
        asks_plugins=("on_event",),
    ),
    _Service(
        "oauth",
        publishes_events=(
            GrantCreated, GrantEnded, SignInDenied, ConnectionCreated, ConnectionEnded,
        ),
        reads=(CONFIG, OAUTH, OAUTH_CLIENTS, OAUTH_BRIEF, TOKENS, PEOPLE, CONNECTIONS),
        writes=(OAUTH, OAUTH_CLIENTS, OAUTH_BRIEF, TOKENS, PEOPLE, CONNECTIONS),
        asks_plugins=("on_login",),
    ),
)  # fmt: skip


def rights() -> dict[str, Rights]:
    """Return the rights of every user.

    An operator can create streams but not delete them.
    """
    users = {service.name: service.rights() for service in _SERVICES}
    subjects = {query.SUBJECT for query in Query.__subclasses__()}
    users[OPERATOR] = Rights(
        publish=(
            "$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "$JS.SNAPSHOT.>", f"$KV.{CONFIG}.>",
            f"$KV.{PINS}.>", f"$KV.{PEOPLE}.>", f"$KV.{INSTALLATION}.>",
            *sorted(subjects - {query.SUBJECT for query in _NOT_QUERIED_BY_OPERATORS}),
            *(f"tb.event.{event.NAME}.*" for event in _PUBLISHED_BY_OPERATORS),
            hooks_at("on_key"),
        ),
        subscribe=(f"_INBOX.{OPERATOR}.>", f"tb.reply.{OPERATOR}.>", watched("*"), "$SYS.>"),
        deny_publish=("$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.PURGE.>"),
    )  # fmt: skip
    return users


def readers_of(bucket: str) -> tuple[str, ...]:
    """Return the services that read a bucket."""
    return tuple(service.name for service in _SERVICES if bucket in service.reads)


def new_seed() -> str:
    """Return a new random seed of a NATS user."""
    return str(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER), "ascii")


def public_key(seed: str) -> str:
    """Return the public key of a seed."""
    return str(nkeys.from_seed(seed.encode()).public_key, "ascii")


def create_seeds(directory: Path, *others: str) -> dict[str, str]:
    """Create missing seed files for all users and `others`, and return their public keys.

    Only the owner of a file can read it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys: dict[str, str] = {}
    for user in (*rights(), *others):
        path = directory / f"{user}.seed"
        create_key(path, lambda: new_seed().encode())
        keys[user] = public_key(path.read_text().strip())
    return keys


def server_configuration(
    public_keys: dict[str, str], *, host: str, port: int, store_dir: str, strict: bool = False
) -> dict[str, Any]:
    """Return the server's configuration; with `strict`, it syncs before it acknowledges."""
    granted = rights()
    return {
        "host": host,
        "port": port,
        "server_name": "toolbus",
        "max_payload": LARGEST_MESSAGE,
        "max_pending": 64 * 1024 * 1024,
        "write_deadline": "10s",
        "jetstream": {
            "store_dir": store_dir,
            "sync_interval": "always" if strict else "1s",
            "max_mem": 64 * 1024 * 1024,
            "max_file": 64 * 1024 * 1024 * 1024,
        },
        "accounts": accounts(
            {user: (each.publish, each.subscribe) for user, each in granted.items()},
            {
                user: {"nkey": public_keys[user], "permissions": permissions_of(each)}
                for user, each in granted.items()
            },
            OPERATOR,
        ),
    }
