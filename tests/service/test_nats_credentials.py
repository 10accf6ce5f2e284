"""The reach of a service's credentials on the bus: directly, and through replies of the server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from time import time

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from harness.engines.bus_reset import connect_as_tester
from harness.engines.nats_server import NatsAt
from harness.engines.permission_denials import denied_among, joined, publish
from harness.waits import PATIENCE, until
from toolbus_common.contracts import (
    CallRequested,
    CallResult,
    PageReply,
    PageRequest,
    ProtocolFamily,
)
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.messaging.broker import ServiceBroker
from toolbus_common.messaging.call_transport import CallTransport
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.accounts import STORE, account_of, overlap
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR, rights
from toolbus_common.nats.topology import (
    BUCKETS,
    CONFIG,
    DURABLES,
    EVENTS,
    INSTALLATION,
    OAUTH,
    OBJECTS,
    PEOPLE,
    RESULTS,
)
from toolbus_common.service.names import SERVICES
from toolbus_common.settings import Settings

STREAMS = (
    EVENTS,
    *(f"KV_{bucket.bucket}" for bucket in BUCKETS),
    *(f"OBJ_{name}" for name in OBJECTS),
)
CHANGING = (  # every JetStream request that changes a stream or a consumer, or lists all of them
    "STREAM.CREATE.{s}", "STREAM.UPDATE.{s}", "STREAM.DELETE.{s}", "STREAM.PURGE.{s}",
    "STREAM.MSG.DELETE.{s}", "STREAM.SNAPSHOT.{s}", "STREAM.RESTORE.{s}",
    "STREAM.PEER.REMOVE.{s}", "STREAM.PEER.EVACUATE.{s}", "STREAM.CANCEL_MOVE.{s}",
    "STREAM.LEADER.STEPDOWN.{s}", "STREAM.TEMPLATE.CREATE.{s}", "STREAM.TEMPLATE.DELETE.{s}",
    "CONSUMER.CREATE.{s}", "CONSUMER.CREATE.{s}.own", "CONSUMER.CREATE.{s}.own.tb.event.>",
    "CONSUMER.CREATE.{s}.own.$KV.>", "CONSUMER.DURABLE.CREATE.{s}.own", "CONSUMER.NAMES.{s}",
    "CONSUMER.LIST.{s}", "CONSUMER.DELETE.{s}.{d}", "CONSUMER.PAUSE.{s}.{d}",
    "CONSUMER.RESET.{s}.{d}", "CONSUMER.UNPIN.{s}.{d}", "CONSUMER.LEADER.STEPDOWN.{s}.{d}",
)  # fmt: skip
OF_THE_SERVER = (
    "INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.TEMPLATE.NAMES", "META.LEADER.STEPDOWN",
    "META.RESCUE", "SERVER.REMOVE", "SERVER.EVACUATE", f"ACCOUNT.PURGE.{STORE}",
    f"ACCOUNT.STREAM.MOVE.{STORE}.{EVENTS}", f"ACCOUNT.STREAM.CANCEL_MOVE.{STORE}.{EVENTS}",
)  # fmt: skip
ELSEWHERE = (  # other paths to the same requests, and to the server's own messages
    "$JS.hub.API.STREAM.CREATE.own", f"$JS.hub.API.CONSUMER.CREATE.{EVENTS}",
    "$JS.SNAPSHOT.ACK.EVENTS.x", "$JS.SNAPSHOT.RESTORE.EVENTS.x", "$JS.EVENT.ADVISORY.API",
    f"$JS.FC.{EVENTS}.audit.x", "$NRG.V.x", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.JSZ",
    "_R_.x", "_GR_.x",
)  # fmt: skip
EVIL = f"$KV.{CONFIG}.admin.evil"
TARGETS = (  # where a forged message would be a request, a call, a reply, an entry or an event
    "tb.query.oauth.identity", "tb.query.oauth.upstream", "tb.query.policy.admin",
    "tb.query.audit.query",
    "tb.query.all.status", "tb.call.x", "tb.run.x", "tb.run.toolbus", "tb.cancel.x",
    "tb.notification.x",
    "tb.resume.x", "tb.session.x", "tb.stream.x", f"tb.kv.{CONFIG}.admin.evil", EVIL,
    f"$KV.{PEOPLE}.evil", f"$O.{RESULTS}.C.evil", "tb.event.key.created.evil",
    "tb.event.call.allowed.evil", "tb.event.connection.created.evil", "$SRV.PING",
    *(f"tb.reply.{service}.origin.call" for service in SERVICES),
    *(f"_INBOX.{service}.evil" for service in (*SERVICES, OPERATOR)),
    "$JS.API.STREAM.CREATE.evil", f"$JS.API.CONSUMER.CREATE.{EVENTS}",
)  # fmt: skip
# A stored message that is valid in many places: as a stream, a consumer, a request.
FORGED = json.dumps({
    "name": "evil", "subjects": ["evil.>"], "stream_name": EVENTS, "secret_hash": "0" * 64,
    "config": {"deliver_subject": "tb.query.oauth.identity", "durable_name": "evil"},
    "user": "evil", "password": "evil",
}).encode()  # fmt: skip


def may_say(user: str, subject: str) -> bool:
    return any(overlap(subject, pattern) == subject for pattern in rights()[user].publish)


def requests() -> Iterator[str]:
    """Yield every JetStream request that a service has no permission for."""
    for stream in STREAMS:
        for durable in {each.consumer_name for each in DURABLES}:
            for request in CHANGING:
                yield f"$JS.API.{request.format(s=stream, d=durable)}"
    yield from (f"$JS.API.{request}" for request in OF_THE_SERVER)
    yield from ELSEWHERE


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", sorted(SERVICES))
async def test_no_service_changes_streams_or_consumers_by_any_request(
    nats_server: NatsAt, user: str
) -> None:
    subjects = set(requests())
    if user == "policy":  # it overwrites the key of an erased person
        subjects.remove(f"$JS.API.STREAM.MSG.DELETE.KV_{PEOPLE}")
    assert await denied_among(nats_server, user, subjects, publish) == subjects


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", sorted(SERVICES))
async def test_a_service_reads_its_own_buckets_and_no_others(
    nats_server: NatsAt, user: str
) -> None:
    own = {
        f"KV_{pattern.split('.')[2]}" for pattern in rights()[user].subscribe if "tb.kv." in pattern
    } | {f"KV_{INSTALLATION}"}  # read at the start, and not watched
    reading = ("STREAM.MSG.GET.{s}", "DIRECT.GET.{s}", "DIRECT.GET.{s}.$KV.x")
    subjects = {f"$JS.API.{way.format(s=s)}" for s in STREAMS for way in reading if s[:3] == "KV_"}
    refused = await denied_among(nats_server, user, subjects, publish)
    assert refused == {each for each in subjects if not own.intersection(each.split("."))}


Subjects = dict[str, set[str]]  # the subjects received in each account


@pytest.fixture
async def received(buses: dict[str, Bus]) -> Subjects:
    """Collect the subjects received in every account."""
    found: Subjects = {account: set() for account in buses}

    def listener(account: str) -> Callable[[Msg], Awaitable[None]]:
        async def hear(message: Msg) -> None:
            found[account].add(message.subject)

        return hear

    for account, bus in buses.items():
        await bus.client.subscribe(">", cb=listener(account))
        await bus.settled()
    return found


@pytest.fixture
async def buses(nats_server: NatsAt, settings: Settings) -> AsyncIterator[dict[str, Bus]]:
    """Connect to every account with all permissions of the account."""
    assert settings
    async with AsyncExitStack() as joining:
        yield {
            account: await joining.enter_async_context(connect_as_tester(nats_server, account))
            for account in (STORE, *SERVICES)
        }


def permitted_requests(user: str) -> Iterator[tuple[str, bytes]]:
    """Yield every request a user may make, each of which gets a reply."""
    for pattern in rights()[user].publish:
        subject = pattern.replace("*", "evil").replace(">", "evil")
        if subject.startswith("$JS.ACK."):
            yield f"{subject.removesuffix('evil')}1.1.1.1.0", b"+NXT"
        elif pattern.startswith("$JS.API.DIRECT.GET.") and not pattern.endswith(">"):
            for form in ({"batch": 10}, {}, {"no_hdr": True}):
                yield pattern, json.dumps({"seq": 1, "next_by_subj": ">", **form}).encode()
        elif subject.startswith("$JS.API.STREAM.MSG.GET."):
            yield subject, json.dumps({"seq": 1, "next_by_subj": ">"}).encode()
        elif ".MSG.NEXT." in subject:
            yield subject, json.dumps({"batch": 10, "no_wait": True}).encode()
        else:
            yield subject, b"" if subject.startswith("$JS.API.") else FORGED


async def carry(client: Client, user: str, target: str) -> None:
    """Let the server send to `target` in every way a user's permissions allow."""
    for subject, payload in permitted_requests(user):
        await client.publish(subject, payload, target)
        await client.publish(subject, payload, headers={"Nats-Trace-Dest": target})


@pytest.mark.parametrize("user", sorted(rights()))
async def test_a_message_reaches_its_permitted_subscribers_and_no_other_account(
    buses: dict[str, Bus], received: Subjects, user: str
) -> None:
    own = account_of(user, OPERATOR)
    message = {
        pattern.replace("*", "said").replace(">", "said")
        for pattern in rights()[user].publish
        if not pattern.startswith(("$JS.", "$KV.", "$O."))
    }
    expected: Subjects = {account: set() for account in buses}
    for other, theirs in rights().items():
        expected[account_of(other, OPERATOR)].update(
            subject
            for subject in message
            for received in theirs.subscribe
            if overlap(subject, received)
        )
    expected[own] = message
    events = {subject for subject in message if subject.startswith("tb.event.")}
    expected[STORE] |= events  # the account of the stream
    for subject in message:
        await buses[own].publish(subject, b"{}")
    await until(
        lambda: all(expected[account] <= received[account] for account in buses),
        "every message is received",
    )
    for bus in buses.values():
        await bus.settled()
    assert {account: each & message for account, each in received.items()} == expected


@pytest.mark.parametrize("user", sorted(SERVICES))
async def test_no_reply_of_the_server_reaches_a_subject_the_service_may_not_publish(
    nats_server: NatsAt, buses: dict[str, Bus], received: Subjects, user: str
) -> None:
    subjects = {target for target in TARGETS if not may_say(user, target)}
    async with joined(nats_server, user) as (client, _):
        for target in sorted(subjects):
            await carry(client, user, target)
        await client.flush()
        # In the service's own account all arrive: so they were sent, and went no further.
        await until(lambda: subjects <= set().union(*received.values()), "every sent message")
    for bus in buses.values():
        await bus.settled()
    others = {account: each & subjects for account, each in received.items() if account != user}
    assert others == {account: set() for account in others}
    store = buses[STORE].client.jetstream()
    assert {each.config.name for each in await store.streams_info()} == set(STREAMS)
    assert {each.name for each in await store.consumers_info(EVENTS)} == {
        each.consumer_name for each in DURABLES
    }
    for bucket, entry in ((CONFIG, "admin.evil"), (PEOPLE, "evil")):
        if not may_say(user, f"$KV.{bucket}.{entry}"):
            with pytest.raises(NotFoundError):
                await store.get_last_msg(f"KV_{bucket}", f"$KV.{bucket}.{entry}")


@pytest.mark.parametrize("user", sorted(SERVICES))
async def test_a_service_cannot_purge_entries_of_others_through_its_own(
    nats_server: NatsAt, buses: dict[str, Bus], user: str
) -> None:
    store = buses[STORE].client.jetstream()
    entries = [f"$KV.{bucket.bucket}.kept" for bucket in BUCKETS]
    entries += [f"$O.{name}.C.kept" for name in OBJECTS]
    for subject in entries:
        await store.publish(subject, b"kept")
    async with joined(nats_server, user) as (client, _):
        for pattern in rights()[user].publish:
            if pattern.startswith(("$KV.", "$O.", "tb.event.")):
                subject = pattern.replace("*", "own").replace(">", "C.own")
                for customer in ("all", "sub"):
                    await client.publish(subject, b"", headers={"Nats-Rollup": customer})
                await client.request(subject, b"mine", timeout=PATIENCE)
    for subject in entries:
        stream = f"{'KV' if subject.startswith('$KV') else 'OBJ'}_{subject.split('.')[1]}"
        assert (await store.get_last_msg(stream, subject)).data == b"kept"


async def test_a_request_is_not_answered_into_a_bucket(buses: dict[str, Bus]) -> None:
    """Reject a reply subject that the requester may not publish, but the service may."""
    request = list[str]()

    async def answer(question: PageRequest) -> PageReply:
        request.append(question.path)
        return PageReply(status=200, body=b"")

    broker = ServiceBroker(buses["oauth"])
    broker.subscriber(PageRequest.SUBJECT, queue="oauth")(answer)
    await broker.start()
    evil, inbox = f"$KV.{OAUTH}.evil", "_INBOX.ingress.told"
    result = asyncio.Event()
    await buses["ingress"].subscribe(inbox, lambda *_: result.set())
    await buses["oauth"].settled()
    for path, reply in (("/evil", evil), ("/told", inbox)):
        page = PageRequest(method="GET", path=path, query="", headers={}, body=b"")
        await buses["ingress"].publish(PageRequest.SUBJECT, page.encode(), reply)
    await asyncio.wait_for(result.wait(), PATIENCE)
    assert request == ["/told"]
    with pytest.raises(NotFoundError):
        await buses[STORE].client.jetstream().get_last_msg(f"KV_{OAUTH}", evil)
    await broker.stop()


async def test_a_call_is_not_answered_into_a_bucket(buses: dict[str, Bus]) -> None:
    served = list[str]()

    async def handler(call: CallRequested, _context: CallContext) -> Reply:
        served.append(call.call_id)
        return CallResult(b"{}")

    lane = CallTransport("policy", buses["policy"], LocalTransport())
    await lane.serve(CallRequested, "*", handler, "policy")
    await buses["policy"].settled()
    for call_id, reply in (("evil", EVIL), ("call", f"$KV.{PEOPLE}.evil")):
        call = CallRequested(
            call_id=call_id, reply_to=reply, server="docs", tool="burn", key_digest="p",
            family=ProtocolFamily.MODERN, deadline=time() + PATIENCE, traceparent="",
        )  # fmt: skip
        await buses["ingress"].publish(call.subject, call.encode(), reply)
    await until(lambda: served == ["evil", "call"], "both are served")
    store = buses[STORE].client.jetstream()
    for stream, subject in ((CONFIG, EVIL), (PEOPLE, f"$KV.{PEOPLE}.evil")):
        with pytest.raises(NotFoundError):
            await store.get_last_msg(f"KV_{stream}", subject)
    await lane.drain(1.0)
