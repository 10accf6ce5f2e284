"""NATS permissions: the server itself rejects what a service may not publish or subscribe to."""

import pytest
from nats.errors import Error as NatsError

from harness.engines.nats_server import NatsAt
from harness.engines.permission_denials import denied_among, joined, publish, subscribe
from toolbus_common.contracts import EVENTS as EVENT_CLASSES
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR, rights
from toolbus_common.nats.topology import (
    AGENT_RUNS,
    APPROVALS,
    BUCKETS,
    CATALOGUE,
    CONFIG,
    CONNECTIONS,
    EVENTS,
    EXPORTS,
    FLOW,
    INSTALLATION,
    LEASES,
    LEDGER,
    MODEL_CACHE,
    OAUTH,
    OAUTH_BRIEF,
    OAUTH_CLIENTS,
    OBJECTS,
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
from toolbus_common.service.names import SERVICES

PUBLISHES = {
    "ingress": {"tb.call.x"},
    "policy": {"tb.run.x", "tb.reply.r.o.c", "tb.query.audit.query"},
    "executor": {"tb.reply.r.o.c", "tb.query.oauth.upstream"},
    "codemode": {"tb.call.x", "tb.reply.r.o.c"},
    "audit": set[str](),
    "oauth": set[str](),
    OPERATOR: {"tb.query.audit.query"},
}
PUBLISHED_EVENTS = {
    "codemode": {
        "call.completed", "call.failed", "call.extended", "context.spent", "context.measured",
        "run.started", "run.completed", "run.failed", "guard.failed",
    },
    "policy": {
        "call.allowed", "call.denied", "call.failed", "call.replayed", "approval.requested",
        "approval.granted", "approval.rejected", "approval.expired", "approval.used",
        "approval.withdrawn", "ledger.opened", "key.created", "key.revoked", "config.applied",
        "config.changed", "guard.failed", "flow.reset", "hold.placed", "hold.lifted",
        "definition.approved", "definition.rejected", "person.erased",
    },
    "oauth": {
        "grant.created", "grant.ended", "signin.denied", "connection.created", "connection.ended",
    },
    "executor": {
        "call.completed", "call.failed", "call.extended", "server.connected", "server.lost",
        "server.faulted", "breaker.opened", "breaker.closed", "definition.pinned",
        "definition.changed", "definition.flagged", "model.used", "cache.purged",
        "guard.failed", "guard.message",
    },
    OPERATOR: {
        "key.created", "key.revoked", "config.applied", "config.changed",
        "definition.approved", "definition.rejected",
        "server.drained", "server.undrained", "server.reset", "person.erased", "hold.placed",
        "hold.lifted",
    },
    "ingress": {"access.rejected", "context.listed"},
    "audit": {"events.expired", "witness.contradicted", "access.rejected"},
}  # fmt: skip
ENTRIES = (
    "configuration",
    "origin",
    "key.k",
    "admin.k",
    "named",
    "hold.k",
    "toolbus",
    "k",
    "audit.store",
)
# By holders of admin keys, through policy.
ADMINISTERED = ("configuration", "origin", "key.k", "admin.k", "hold.k")
WRITES = {
    "policy": {LEDGER, APPROVALS, TASKS, OUTCOMES, PEOPLE, FLOW, PLACEHOLDERS, PINS},
    "executor": {
        CATALOGUE,
        LEASES,
        SESSIONS,
        PINS,
        OUTCOMES,
        PEOPLE,
        MODEL_CACHE,
        PLACEHOLDERS,
    },
    "codemode": {OUTCOMES, PEOPLE, AGENT_RUNS, PLACEHOLDERS},
    "audit": {SEALS, EXPORTS},
    "oauth": {OAUTH, OAUTH_CLIENTS, OAUTH_BRIEF, TOKENS, PEOPLE, CONNECTIONS},
    OPERATOR: {CONFIG, PEOPLE, PINS, INSTALLATION},
}
SUBSCRIBES = {"policy": {"tb.call.x"}, "executor": {"tb.run.x"}}

USERS = sorted(rights())
CALL_SUBJECTS = {"tb.call.x", "tb.run.x", "tb.reply.r.o.c", "tb.query.audit.query"}
EVENT_SUBJECTS = {f"tb.event.{name}.acme": name for name in EVENT_CLASSES}


def test_every_service_is_covered() -> None:
    assert set(USERS) == {*SERVICES, OPERATOR} == set(PUBLISHES)


def test_every_event_has_a_publisher() -> None:
    assert set().union(*PUBLISHED_EVENTS.values()) == set(EVENT_CLASSES)


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", USERS)
async def test_a_service_may_publish_its_own_call_subjects_and_no_others(
    nats_server: NatsAt, user: str
) -> None:
    assert (
        await denied_among(nats_server, user, CALL_SUBJECTS, publish)
        == CALL_SUBJECTS - PUBLISHES[user]
    )


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", USERS)
async def test_a_service_may_publish_its_own_events_and_forge_no_others(
    nats_server: NatsAt, user: str
) -> None:
    own = {s for s, name in EVENT_SUBJECTS.items() if name in PUBLISHED_EVENTS.get(user, set())}
    refused = await denied_among(nats_server, user, set(EVENT_SUBJECTS), publish)
    assert refused == set(EVENT_SUBJECTS) - own


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", USERS)
async def test_a_service_may_write_its_own_buckets_and_no_others(
    nats_server: NatsAt, user: str
) -> None:
    entries = {f"$KV.{bucket.bucket}.{entry}" for bucket in BUCKETS for entry in ENTRIES}
    own = {f"$KV.{bucket}.{entry}" for bucket in WRITES.get(user, set()) for entry in ENTRIES}
    own |= {f"$KV.{CONFIG}.{entry}" for entry in ADMINISTERED} if user == "policy" else set()
    own |= {f"$KV.{INSTALLATION}.audit.store"} if user == "audit" else set()
    own |= {f"$KV.{CATALOGUE}.toolbus"} if user == "codemode" else set()
    assert await denied_among(nats_server, user, entries, publish) == entries - own


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", USERS)
async def test_only_codemode_and_executor_write_and_read_large_results(
    nats_server: NatsAt, user: str
) -> None:
    request = {f"$JS.API.STREAM.MSG.GET.OBJ_{RESULTS}"}
    written = {f"$O.{RESULTS}.{part}.x" for part in ("C", "M")}
    refused = await denied_among(nats_server, user, request | written, publish)
    if user in ("codemode", "executor"):
        assert refused == set()
    else:  # an operator may read everything, and finds only encrypted objects
        allowed = request if user == OPERATOR else set[str]()
        assert refused == (request | written) - allowed


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", USERS)
async def test_a_service_subscribes_to_its_own_subjects_and_no_others(
    nats_server: NatsAt, user: str
) -> None:
    others = set(USERS) - {user}
    foreign = {
        ">", "tb.>", "tb.event.>", "tb.reply.>", "tb.call.*", "tb.run.*", "_INBOX.>", "$KV.>",
        "$JS.API.>",
        *(f"tb.reply.{other}.>" for other in others),
        *(f"_INBOX.{other}.>" for other in others),
        *(f"tb.query.{other}.>" for other in others),
    }  # fmt: skip
    received = {subject.replace(".x", ".*") for subject in SUBSCRIBES.get(user, set())}
    own = {f"tb.reply.{user}.>", f"_INBOX.{user}.>"}
    refused = await denied_among(nats_server, user, foreign | own, subscribe)
    assert refused == foreign - received


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", USERS)
async def test_no_service_deletes_or_purges_a_stream(nats_server: NatsAt, user: str) -> None:
    streams = [EVENTS, *(f"KV_{bucket.bucket}" for bucket in BUCKETS)]
    streams += [f"OBJ_{name}" for name in OBJECTS]
    subjects = {f"$JS.API.STREAM.{what}.{s}" for s in streams for what in ("DELETE", "PURGE")}
    assert await denied_among(nats_server, user, subjects, publish) == subjects
    async with joined(nats_server, user) as (client, _):
        with pytest.raises((NatsError, TimeoutError)):
            await client.request(f"$JS.API.STREAM.PURGE.{EVENTS}", b"{}", timeout=0.2)


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", sorted(SERVICES))
async def test_a_service_reads_the_stream_through_its_own_consumer_and_only_two_directly(
    nats_server: NatsAt, user: str
) -> None:
    consumers = {f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{name}" for name in SERVICES}
    others = {
        f"$JS.API.STREAM.MSG.GET.{EVENTS}", f"$JS.API.DIRECT.GET.{EVENTS}",
        f"$JS.API.CONSUMER.CREATE.{EVENTS}", f"$JS.API.CONSUMER.CREATE.{EVENTS}.own.tb.event.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{EVENTS}.own",
        f"$JS.API.CONSUMER.DELETE.{EVENTS}.audit", f"$JS.API.STREAM.UPDATE.{EVENTS}",
        "$JS.API.STREAM.CREATE.own", f"$JS.API.STREAM.SNAPSHOT.{EVENTS}",
    }  # fmt: skip
    own = {f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{user}"} if user in ("audit", "policy") else set()
    if user in ("audit", "policy"):  # for checkpoints, and for the intents of expired reservations
        own |= {f"$JS.API.DIRECT.GET.{EVENTS}"}
    own |= {f"$JS.API.STREAM.MSG.GET.{EVENTS}"} if user == "policy" else set()
    refused = await denied_among(nats_server, user, consumers | others, publish)
    assert refused == (consumers | others) - own


async def test_a_connection_without_a_seed_is_rejected(nats_server: NatsAt) -> None:
    stranger = Bus("stranger", nats_server.url)
    text = r"Cannot connect to NATS .* as stranger.*(Authorization|rejects a user)"
    with pytest.raises(BusDownError, match=text):
        await stranger.open(patience=5.0)
