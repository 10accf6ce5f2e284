"""One call through a gateway, compared with the pages that describe it."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from harness.clients.bus_operator import key
from harness.engines.bus_reset import connect_as_tester
from harness.gateway.cluster import Cluster, Upstream
from harness.waits import until
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Budget, Configuration, Period, Server
from toolbus_common.contracts import CallAdmitted, CallRequested
from toolbus_common.nats.accounts import STORE

SECRET = "tbk_bot_a-secret-of-one-call"
ROOT = Path(__file__).resolve().parents[2]
STEPS = (ROOT / "ARCHITECTURE.md").read_text()
SUBJECTS = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
Messages = list[tuple[str, bytes]]
# The subscriptions that receive all of it. Messages whose order matters are received in one
# account, by one connection.
FUSED = {STORE: ("tb.>",), "policy": ("tb.call.>", "tb.run.>"), "ingress": ("tb.reply.>",)}
APART = {"policy": ("tb.>",), "executor": ("tb.reply.>", "tb.event.>"), STORE: ("tb.kv.>",)}


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Run a gateway with one server."""
    upstream = Upstream(tmp_path_factory.mktemp("upstream"))
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    with (
        upstream.running(),
        cluster.running(
            Configuration(
                servers={"echo": Server(url=upstream.url)},
                keys={"bot": key(SECRET, budget=Budget(usd=5, per=Period.DAY))},
                prices={"echo__say": 0.01},
            ),
            fused=request.param == "fused",
        ),
    ):
        cluster.until_listed(cluster.client(SECRET), "echo__say")
        yield cluster


async def overheard(cluster: Cluster) -> Messages:
    """Return every message on the bus until one call is complete."""
    received: Messages = []
    async with AsyncExitStack() as joined:
        for account, subjects in (FUSED if cluster.fused else APART).items():
            bus = await joined.enter_async_context(connect_as_tester(cluster.nats.at, account))
            for each in subjects:
                await bus.subscribe(each, lambda data, subject, _: received.append((subject, data)))
            await bus.settled()
        answer = await asyncio.to_thread(cluster.client(SECRET).call, "echo__say", {"text": "hi"})
        assert answer.text == "hi"
        await until(lambda: story(received, cluster), "a call with all its steps")
    return received


def story(messages: Messages, cluster: Cluster) -> Messages:
    """Return the messages of the first call that has all its steps, or none.

    An event that is acknowledged late is published again. Duplicates are removed, and events of
    calls with missing steps are skipped.
    """
    once = list(dict.fromkeys(messages))
    for call_id in re.findall(rb'"call_id":"(\w+)"', b"".join(data for _, data in once)):
        of_it = [one for one in once if call_id in one[1] or one[0].endswith(call_id.decode())]
        if len(kinds(of_it)) == (2 if cluster.fused else 5):
            return of_it
    return []


def documented_subjects() -> list[re.Pattern[str]]:
    """Return patterns of the subjects in the table of docs/explanation/architecture.md."""
    rows = re.findall(r"^\| (`tb\.[^|]+) \|", SUBJECTS, re.MULTILINE)
    subjects = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    patterns = [re.escape(name).replace("<key>", ".+") for name in subjects]  # keys have dots
    return [re.compile(re.sub(r"<\w+>", r"[^.]+", pattern)) for pattern in patterns]


def kinds(messages: Messages) -> list[str]:
    """Return the subjects of calls, without ids and without other subjects."""
    subjects = [re.sub(r"^(tb\.reply\.ingress)\..*", r"\1", subject) for subject, _ in messages]
    return [
        subject for subject in subjects if re.match(r"tb\.(call|run|reply|event\.call)\.", subject)
    ]


async def test_the_subjects_come_in_the_documented_order(cluster: Cluster) -> None:
    received = kinds(story(await overheard(cluster), cluster))
    events = ["tb.event.call.allowed.default", "tb.event.call.completed.default"]
    if cluster.fused:
        assert received == events
        return
    request, allowed, run = received[:3]
    assert (request, allowed, run) == ("tb.call.echo", events[0], "tb.run.echo")
    assert sorted(received[3:]) == sorted(["tb.reply.ingress", events[1]])


async def test_every_published_subject_is_in_the_table(cluster: Cluster) -> None:
    table = documented_subjects()
    assert len(table) == 14
    for subject, _ in await overheard(cluster):
        assert any(row.fullmatch(subject) for row in table), subject


async def test_the_bus_carries_a_key_digest_and_never_the_key(cluster: Cluster) -> None:
    received = await overheard(cluster)
    message = b"\n".join(data for _, data in received)
    assert SECRET.encode() not in message
    assert hash_of(key_digest_of(SECRET)).encode() not in message
    if not cluster.fused:
        of_it = dict(story(received, cluster))
        request = CallRequested.decode(of_it["tb.call.echo"])
        run = CallAdmitted.decode(of_it["tb.run.echo"])
        assert request.key_digest == key_digest_of(SECRET)
        assert key_digest_of(SECRET).encode() not in of_it["tb.run.echo"]
        assert run.reply_to == request.reply_to
        assert request.reply_to in of_it, "executor answers the waiting slot directly"
        assert run.arguments == request.arguments == b'{"text":"hi"}'
        assert (run.charge, run.reserved) == (10_000, True)


def test_the_page_lists_the_steps_in_their_order() -> None:
    story = STEPS.split("## The life of one call")[1].split("\n## ")[0]
    steps = re.findall(r"^\d\. \*\*(\w+)\*\*", story, re.MULTILINE)
    assert steps == ["ingress", "policy", "executor", "policy", "audit"]
    for word in ("CallRequested", "call.allowed", "CallAdmitted", "call.completed", "call.failed"):
        assert word in story
