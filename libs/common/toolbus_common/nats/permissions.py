"""Who may say and hear what, as NATS enforces it: one user per service, derived here alone."""

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
    BreakerClosed,
    BreakerOpened,
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
    DefinitionPinned,
    DefinitionRejected,
    Event,
    EventsExpired,
    GrantCreated,
    GrantEnded,
    HoldLifted,
    HoldPlaced,
    IdentityKeyQuery,
    KeyCreated,
    KeyRevoked,
    LedgerOpened,
    OpenCallsQuery,
    PageRequest,
    PersonErased,
    Query,
    RunCompleted,
    RunFailed,
    RunStarted,
    ServerConnected,
    ServerDrained,
    ServerFaulted,
    ServerLost,
    ServerReset,
    ServerUndrained,
    SignInDenied,
    SpendingQuery,
    TokenQuery,
    UnresolvedCallsQuery,
    UpstreamTokenQuery,
    WitnessContradicted,
)
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.crypto.key_file import create_key
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.nats.accounts import accounts
from toolbus_common.nats.connection import LARGEST_MESSAGE
from toolbus_common.nats.kv_bucket import watched
from toolbus_common.nats.topology import (
    ADMIN_PREFIX,
    APPROVALS,
    CATALOGUE,
    CONFIG,
    CONNECTIONS,
    DECLARATION,
    DURABLES,
    EVENTS,
    EXPORTS,
    KEY_PREFIX,
    LEASES,
    LEDGER,
    OAUTH,
    OAUTH_BRIEF,
    OAUTH_CLIENTS,
    ORIGIN,
    OUTCOMES,
    PEOPLE,
    PINS,
    RESULTS,
    SEALS,
    SESSIONS,
    TASKS,
    TOKENS,
)

OPERATOR = "operator"
_SAID_BY_OPERATORS = (
    KeyCreated, KeyRevoked, ConfigApplied, ConfigChanged, DefinitionApproved, DefinitionRejected,
    ServerDrained, ServerUndrained, ServerReset, PersonErased, HoldPlaced, HoldLifted,
)  # fmt: skip
# Entries of the configuration that change over the administration API.
_DECLARED = (DECLARATION, ORIGIN, f"{KEY_PREFIX}>", f"{ADMIN_PREFIX}>")
# A server's token is nobody's but the executor's, and so is the key that says who calls.
_NOT_ASKED_BY_OPERATORS = (UpstreamTokenQuery, IdentityKeyQuery)


@dataclass(frozen=True, slots=True)
class Rights:
    """What one user may publish and subscribe to, and what is denied it whatever else is said."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny_publish: tuple[str, ...] = ()
    deny_subscribe: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Service:
    name: str
    says: tuple[type[Event], ...] = ()
    publishes: tuple[str, ...] = ()
    subscribes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()  # buckets
    writes: tuple[str, ...] = ()  # buckets
    never_hears: tuple[str, ...] = ()
    asks: tuple[type[Query], ...] = ()
    ends: bool = False  # calls, whose outcomes it keeps; what others kept is not its to read

    def rights(self) -> Rights:
        """Everything this service needs, and nothing else."""
        publish = [f"tb.event.{event.NAME}.*" for event in self.says]
        publish += [*self.publishes, *(question.SUBJECT for question in self.asks)]
        publish += [f"_INBOX.{other}.>" for other in _answered(self.name)]
        for bucket in self.reads:
            publish += _reading(bucket)
        publish += [f"$KV.{bucket}.>" for bucket in self.writes]
        if self.ends:
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
            "$SRV.>",
            *(watched(bucket) for bucket in self.reads),
            *self.subscribes,
        ]
        return Rights(tuple(publish), tuple(subscribe), deny_subscribe=self.never_hears)


def _reading(bucket: str) -> list[str]:
    """Requests that read a bucket. None of them makes the server keep anything."""
    stream = f"KV_{bucket}"
    return [
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    ]


def _objects(store: str) -> list[str]:
    """To read and write an object store."""
    return [f"$O.{store}.>", f"$JS.API.STREAM.MSG.GET.OBJ_{store}"]


def _answered(service: str) -> list[str]:
    """Those who ask this service something, and hear its answers; operators ask every service."""
    asking = [
        each.name
        for each in _SERVICES
        if any(question.SUBJECT.startswith(f"tb.query.{service}.") for question in each.asks)
    ]
    return sorted({OPERATOR, service, *asking})


_SERVICES = (
    _Service(
        "ingress",
        says=(AccessRejected, ContextListed),
        publishes=("tb.call.*", "tb.cancel.*", "tb.session.*", "tb.stream.*", "tb.client.*"),
        subscribes=("tb.notification.*", "tb.session.*", "tb.stream.*"),
        reads=(CONFIG, CATALOGUE, TOKENS),
        asks=(ApproverRequest, AdminRequest, PageRequest, TokenQuery),
    ),
    _Service(
        "policy",
        says=(
            CallAllowed, CallDenied, CallFailed, CallReplayed, ApprovalRequested, ApprovalGranted,
            ApprovalRejected, ApprovalExpired, ApprovalUsed, ApprovalWithdrawn, LedgerOpened,
            KeyCreated, KeyRevoked, ConfigApplied, ConfigChanged,
        ),
        publishes=(
            "tb.run.*", "tb.reply.>", "tb.cancel.*",
            # How far audit and policy have come: before lost counters are made anew from what
            # audit keeps, and before a call is taken for one whose outcome never came.
            f"$JS.API.STREAM.INFO.{EVENTS}",
            f"$JS.API.CONSUMER.INFO.{EVENTS}.audit", f"$JS.API.CONSUMER.INFO.{EVENTS}.policy",
            # What is declared, for who administers over HTTP; the rest of it is an operator's word.
            *(f"$KV.{CONFIG}.{entry}" for entry in _DECLARED),
            # The intents of expired reservations; the second from the stream's leader.
            f"$JS.API.DIRECT.GET.{EVENTS}", f"$JS.API.STREAM.MSG.GET.{EVENTS}",
        ),
        subscribes=("tb.call.*", "tb.cancel.*"),
        reads=(CONFIG, CATALOGUE, LEDGER, APPROVALS, TASKS, OUTCOMES, PEOPLE, TOKENS),
        writes=(LEDGER, APPROVALS, TASKS, OUTCOMES, PEOPLE),
        asks=(SpendingQuery, OpenCallsQuery, UnresolvedCallsQuery),
    ),
    _Service(
        "executor",
        says=(
            CallCompleted, CallFailed, CallExtended, ServerConnected, ServerLost, ServerFaulted,
            BreakerOpened, BreakerClosed, DefinitionPinned, DefinitionChanged,
        ),
        publishes=("tb.reply.>", "tb.notification.*", "tb.resume.*", *_objects(RESULTS)),
        subscribes=(
            "tb.run.*", "tb.cancel.*", "tb.resume.*", "tb.client.*",
            subject_of(ConnectionCreated.NAME, "*"),
        ),
        never_hears=(f"tb.run.{BUILT_IN}",),  # these calls carry a proof of their key
        reads=(CONFIG, CATALOGUE, LEASES, SESSIONS, PINS, PEOPLE),
        writes=(CATALOGUE, LEASES, SESSIONS, PINS, PEOPLE),
        asks=(UpstreamTokenQuery, IdentityKeyQuery),
        ends=True,
    ),
    _Service(
        "codemode",
        says=(
            CallCompleted, CallFailed, CallExtended, ContextSpent, ContextMeasured, RunStarted,
            RunCompleted, RunFailed,
        ),
        publishes=(
            "tb.call.*", "tb.cancel.*", "tb.reply.>", f"$KV.{CATALOGUE}.{BUILT_IN}",
            *_objects(RESULTS),
        ),
        subscribes=(f"tb.run.{BUILT_IN}", "tb.cancel.*"),
        reads=(CONFIG, CATALOGUE, PEOPLE, TOKENS),
        writes=(PEOPLE,),
        ends=True,
    ),
    _Service(
        "audit",
        says=(EventsExpired, WitnessContradicted, AccessRejected),
        # The stream as it is, for the seal, for sinks and for what tables lack; how far the writer
        # is, for exports.
        publishes=(
            f"$JS.API.STREAM.INFO.{EVENTS}", f"$JS.API.DIRECT.GET.{EVENTS}",
            f"$JS.API.CONSUMER.INFO.{EVENTS}.audit",
        ),
        reads=(CONFIG, SEALS, EXPORTS, PEOPLE),
        writes=(SEALS, EXPORTS),
    ),
    _Service(
        "oauth",
        says=(GrantCreated, GrantEnded, SignInDenied, ConnectionCreated, ConnectionEnded),
        reads=(CONFIG, OAUTH, OAUTH_CLIENTS, OAUTH_BRIEF, TOKENS, PEOPLE, CONNECTIONS),
        writes=(OAUTH, OAUTH_CLIENTS, OAUTH_BRIEF, TOKENS, PEOPLE, CONNECTIONS),
    ),
)  # fmt: skip


def rights() -> dict[str, Rights]:
    """Every user's rights. The operator lays down streams and asks, but deletes no stream."""
    users = {service.name: service.rights() for service in _SERVICES}
    asked = {question.SUBJECT for question in Query.__subclasses__()}
    users[OPERATOR] = Rights(
        publish=(
            "$JS.API.>", "$JS.ACK.>", "$JS.FC.>", f"$KV.{CONFIG}.>", f"$KV.{PINS}.>",
            f"$KV.{PEOPLE}.>", "$SRV.>",
            *sorted(asked - {question.SUBJECT for question in _NOT_ASKED_BY_OPERATORS}),
            *(f"tb.event.{event.NAME}.*" for event in _SAID_BY_OPERATORS),
        ),
        subscribe=(f"_INBOX.{OPERATOR}.>", f"tb.reply.{OPERATOR}.>", watched("*"), "$SYS.>"),
        deny_publish=("$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.PURGE.>"),
    )  # fmt: skip
    return users


def readers_of(bucket: str) -> tuple[str, ...]:
    """The services that read a bucket."""
    return tuple(service.name for service in _SERVICES if bucket in service.reads)


def new_seed() -> str:
    """A fresh NATS user seed."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def public_key(seed: str) -> str:
    """What the server may know of a seed."""
    public: bytes = nkeys.from_seed(seed.encode()).public_key
    return public.decode()


def create_seeds(directory: Path) -> dict[str, str]:
    """A seed file per user, made where missing, readable by the owner only; user -> public key."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys: dict[str, str] = {}
    for user in rights():
        path = directory / f"{user}.seed"
        create_key(path, lambda: new_seed().encode())
        keys[user] = public_key(path.read_text().strip())
    return keys


def server_configuration(
    public_keys: dict[str, str], *, host: str, port: int, store_dir: str
) -> dict[str, Any]:
    """Build the NATS server's configuration. Its format is a superset of JSON: dump it as such."""
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
            "sync_interval": "1s",
            "max_mem": 64 * 1024 * 1024,
            "max_file": 16 * 1024 * 1024 * 1024,
        },
        "accounts": accounts(
            {user: (each.publish, each.subscribe) for user, each in granted.items()},
            {
                user: {"nkey": public_keys[user], "permissions": _permissions(each)}
                for user, each in granted.items()
            },
            OPERATOR,
        ),
    }


def _permissions(granted: Rights) -> dict[str, Any]:
    publish: dict[str, Any] = {"allow": list(granted.publish)}
    if granted.deny_publish:
        publish["deny"] = list(granted.deny_publish)
    subscribe: dict[str, Any] = {"allow": list(granted.subscribe)}
    if granted.deny_subscribe:
        subscribe["deny"] = list(granted.deny_subscribe)
    return {"publish": publish, "subscribe": subscribe}
