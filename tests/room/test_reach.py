"""What a service's credentials reach on the bus: directly, and through what the server sends."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from harness.engines import NatsAt
from harness.fresh import joined_by_tester
from harness.refusing import joined, publish, refused_among
from harness.waiting import until
from toolbus_common.accounts import STORE, overlap
from toolbus_common.bus import Bus
from toolbus_common.permissions import OPERATOR, rights
from toolbus_common.process import ROOMS
from toolbus_common.provision import BUCKETS, CONFIG, DURABLES, FACTS, OBJECTS, PEOPLE, RESULTS

STREAMS = (
    FACTS,
    *(f"KV_{bucket.bucket}" for bucket in BUCKETS),
    *(f"OBJ_{name}" for name in OBJECTS),
)
CHANGING = (  # every request of JetStream's that changes a stream or a consumer, or tells of all
    "STREAM.CREATE.{s}", "STREAM.UPDATE.{s}", "STREAM.DELETE.{s}", "STREAM.PURGE.{s}",
    "STREAM.MSG.DELETE.{s}", "STREAM.SNAPSHOT.{s}", "STREAM.RESTORE.{s}",
    "STREAM.PEER.REMOVE.{s}", "STREAM.PEER.EVACUATE.{s}", "STREAM.CANCEL_MOVE.{s}",
    "STREAM.LEADER.STEPDOWN.{s}", "STREAM.TEMPLATE.CREATE.{s}", "STREAM.TEMPLATE.DELETE.{s}",
    "CONSUMER.CREATE.{s}", "CONSUMER.CREATE.{s}.own", "CONSUMER.CREATE.{s}.own.tb.fact.>",
    "CONSUMER.CREATE.{s}.own.$KV.>", "CONSUMER.DURABLE.CREATE.{s}.own", "CONSUMER.NAMES.{s}",
    "CONSUMER.LIST.{s}", "CONSUMER.DELETE.{s}.{d}", "CONSUMER.PAUSE.{s}.{d}",
    "CONSUMER.RESET.{s}.{d}", "CONSUMER.UNPIN.{s}.{d}", "CONSUMER.LEADER.STEPDOWN.{s}.{d}",
)  # fmt: skip
OF_THE_SERVER = (
    "INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.TEMPLATE.NAMES", "META.LEADER.STEPDOWN",
    "META.RESCUE", "SERVER.REMOVE", "SERVER.EVACUATE", f"ACCOUNT.PURGE.{STORE}",
    f"ACCOUNT.STREAM.MOVE.{STORE}.{FACTS}", f"ACCOUNT.STREAM.CANCEL_MOVE.{STORE}.{FACTS}",
)  # fmt: skip
ELSEWHERE = (  # other ways to the same requests, and to what the server says of itself
    "$JS.hub.API.STREAM.CREATE.own", f"$JS.hub.API.CONSUMER.CREATE.{FACTS}",
    "$JS.SNAPSHOT.ACK.FACTS.x", "$JS.SNAPSHOT.RESTORE.FACTS.x", "$JS.EVENT.ADVISORY.API",
    f"$JS.FC.{FACTS}.audit.x", "$NRG.V.x", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.JSZ",
    "_R_.x", "_GR_.x",
)  # fmt: skip
EVIL = f"$KV.{CONFIG}.admin.evil"
TARGETS = (  # where a forged message would be a question, a call, an answer, an entry or a fact
    "tb.ask.oauth.identity", "tb.ask.oauth.upstream", "tb.ask.policy.admin", "tb.ask.audit.query",
    "tb.ask.all.status", "tb.call.x", "tb.run.x", "tb.run.toolbus", "tb.cancel.x", "tb.event.x",
    "tb.park.x", "tb.session.x", "tb.resume.x", f"tb.kv.{CONFIG}.admin.evil", EVIL,
    f"$KV.{PEOPLE}.evil", f"$O.{RESULTS}.C.evil", "tb.fact.key.created.evil",
    "tb.fact.call.allowed.evil", "tb.fact.connection.made.evil", "$SRV.PING",
    *(f"tb.reply.{room}.origin.call" for room in ROOMS),
    *(f"_INBOX.{room}.evil" for room in (*ROOMS, OPERATOR)),
    "$JS.API.STREAM.CREATE.evil", f"$JS.API.CONSUMER.CREATE.{FACTS}",
)  # fmt: skip
# A stored message that would be understood in many places: as a stream, a consumer, a question.
FORGED = json.dumps({
    "name": "evil", "subjects": ["evil.>"], "stream_name": FACTS, "secret_hash": "0" * 64,
    "config": {"deliver_subject": "tb.ask.oauth.identity", "durable_name": "evil"},
    "user": "evil", "password": "evil",
}).encode()  # fmt: skip


def may_say(user: str, subject: str) -> bool:
    return any(overlap(subject, pattern) == subject for pattern in rights()[user].publish)


def requests() -> Iterator[str]:
    """Every request of JetStream's that a service has no right to."""
    for stream in STREAMS:
        for durable in {each.known_as for each in DURABLES}:
            for request in CHANGING:
                yield f"$JS.API.{request.format(s=stream, d=durable)}"
    yield from (f"$JS.API.{request}" for request in OF_THE_SERVER)
    yield from ELSEWHERE


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", sorted(ROOMS))
async def test_no_service_changes_streams_or_consumers_by_any_request_there_is(
    nats_server: NatsAt, user: str
) -> None:
    tried = set(requests())
    assert await refused_among(nats_server, user, tried, publish) == tried


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("user", sorted(ROOMS))
async def test_a_service_reads_its_own_buckets_and_no_others(
    nats_server: NatsAt, user: str
) -> None:
    own = {f"KV_{pattern.split('.')[2]}" for pattern in rights()[user].subscribe if "tb.kv." in pattern}
    reading = ("STREAM.MSG.GET.{s}", "DIRECT.GET.{s}", "DIRECT.GET.{s}.$KV.x")
    tried = {f"$JS.API.{way.format(s=s)}" for s in STREAMS for way in reading if s[:3] == "KV_"}
    refused = await refused_among(nats_server, user, tried, publish)
    assert refused == {each for each in tried if not own.intersection(each.split("."))}


class Reached:
    """What arrived in each account while a service tried, and in which of them it was allowed."""

    def __init__(self) -> None:
        self.heard: dict[str, set[str]] = {}

    def hear(self, account: str) -> None:
        self.heard[account] = set()

    def listener(self, account: str) -> object:
        async def hear(message: Msg) -> None:
            self.heard[account].add(message.subject)

        return hear


@pytest.fixture
async def reached(nats_server: NatsAt, settings: object) -> AsyncIterator[tuple[Reached, dict[str, Bus]]]:
    """Somebody in every account who hears everything that is said there."""
    assert settings
    found, buses = Reached(), dict[str, Bus]()
    async with AsyncExitStack() as open_:
        for account in (STORE, *ROOMS):
            bus = await open_.enter_async_context(joined_by_tester(nats_server, account))
            found.hear(account)
            await bus.client.subscribe(">", cb=found.listener(account))  # type: ignore[arg-type]
            await bus.client.flush()
            buses[account] = bus
        yield found, buses


async def carried(client: Client, user: str, target: str) -> None:
    """Have the server send to `target` in every way that this user's rights leave."""
    for pattern in rights()[user].publish:
        subject = pattern.replace("*", "evil").replace(">", "evil")
        if subject.startswith("$JS.API.DIRECT.GET."):
            continue
        payload = FORGED
        if ".MSG.NEXT." in subject:
            payload = json.dumps({"batch": 10, "no_wait": True}).encode()
        elif subject.startswith("$JS.API.STREAM.MSG.GET."):
            payload = json.dumps({"seq": 1, "next_by_subj": ">"}).encode()
        elif subject.startswith("$JS.API."):
            payload = b""
        elif subject.startswith("$JS.ACK."):
            subject, payload = f"{subject.removesuffix('evil')}1.1.1.1.0", b"+NXT"
        await client.publish(subject, payload, target)
        await client.publish(subject, payload, headers={"Nats-Trace-Dest": target})
    for pattern in rights()[user].publish:
        if pattern.startswith("$JS.API.DIRECT.GET.") and not pattern.endswith(">"):
            for form in ({"batch": 10}, {}, {"no_hdr": True}):
                asked = json.dumps({"seq": 1, "next_by_subj": ">", **form}).encode()
                await client.publish(pattern, asked, target)


@pytest.mark.parametrize("user", sorted(ROOMS))
async def test_no_answer_of_the_server_reaches_what_a_service_may_not_reach_itself(
    nats_server: NatsAt, reached: tuple[Reached, dict[str, Bus]], user: str
) -> None:
    found, buses = reached
    tried = {target for target in TARGETS if not may_say(user, target)}
    async with joined(nats_server, user) as (client, _):
        for target in sorted(tried):
            await carried(client, user, target)
        await client.flush()
        # In its own account they all arrive: so they were sent, and went no further.
        await until(lambda: tried <= set().union(*found.heard.values()), "all that is sent")
    for bus in buses.values():
        await bus.client.flush()
    others = {account: heard & tried for account, heard in found.heard.items() if account != user}
    assert others == {account: set() for account in others}
    store = buses[STORE].client.jetstream()
    assert {each.config.name for each in await store.streams_info()} == set(STREAMS)
    assert {each.name for each in await store.consumers_info(FACTS)} == {
        each.known_as for each in DURABLES
    }
    for bucket, entry in ((CONFIG, "admin.evil"), (PEOPLE, "evil")):
        if not may_say(user, f"$KV.{bucket}.{entry}"):
            with pytest.raises(NotFoundError):
                await store.get_last_msg(f"KV_{bucket}", f"$KV.{bucket}.{entry}")
