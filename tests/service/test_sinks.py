"""SIEM sinks for events of a real stream, over syslog and HTTP: each event at least once."""

import asyncio
import json
import re
import ssl
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.audit.events import allowed, events_of
from harness.oauth.certificates import Authority
from harness.receivers.syslog_receivers import Datagrams, SyslogServer
from harness.receivers.webhook_receiver import Received, Receiver
from harness.services.sinks import MemoryStream, running_sinks, sink
from harness.waits import PATIENCE, until
from toolbus_audit.siem.forwarders import Timing
from toolbus_audit.siem.registry import SinkRegistry
from toolbus_common.contracts import CallAllowed, CallDenied, Event
from toolbus_common.egress.tls import Tls
from toolbus_common.settings import Settings


async def publish_all(settings: Settings, directory: Path, *events: Event) -> None:
    """Publish these events as a service, one message each."""
    async with events_of("policy", settings, directory) as policy:
        for each in events:
            await policy.publish_durable(each)


def intents(*numbers: int, **given: Any) -> Sequence[CallAllowed]:
    return [allowed(call_id=f"c{number}", **given) for number in numbers]


def ids(*numbers: int) -> list[str]:
    return [f"c{number}.allowed" for number in numbers]


def denied(number: int) -> CallDenied:
    return CallDenied(
        id=f"c{number}.denied", at=1_763_708_342.5, customer="acme", call_id=f"c{number}",
        key="bot", server="docs", tool="burn", code="rule_denied", reason="No.",
    )  # fmt: skip


def state(sinks: SinkRegistry) -> str:
    """Return the state of the sink, as `toolbus status` shows it."""
    return sinks.states().get("siem", "")


async def test_events_are_sent_over_tls_in_order_in_the_form_of_rfc_5424(
    settings: Settings, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.vouched("localhost"))
    await publish_all(settings, tmp_path, *intents(1, 2, 3), denied(4))
    async with SyslogServer(context) as server:
        siem = sink(f"syslog+tls://localhost:{server.port}")
        async with running_sinks(settings, {"siem": siem}, tls=Tls(extra=authority.ca)):
            await until(lambda: len(server.messages) == 4, "four events")
        assert server.ids == [*ids(1, 2, 3), "c4.denied"]
        assert server.connections == 1
    intent, *_, refusal = server.messages
    assert (intent.priority, intent.program, intent.name) == (110, "toolbus", "call.allowed")
    assert (refusal.priority, refusal.at) == (109, "2025-11-21T06:59:02.500000Z")
    assert re.fullmatch("[!-~]{1,255}", refusal.host)


async def test_a_sink_with_an_untrusted_certificate_receives_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.vouched("localhost"))
    await publish_all(settings, tmp_path, *intents(1))
    async with SyslogServer(context) as server:
        siem = sink(f"syslog+tls://localhost:{server.port}")
        async with running_sinks(settings, {"siem": siem}) as sinks:
            await until(lambda: "SSLCertVerificationError" in str(sinks.states()), "its failure")
        assert server.messages == []


async def test_a_restarted_syslog_server_receives_everything(
    settings: Settings, tmp_path: Path
) -> None:
    await publish_all(settings, tmp_path, *intents(*range(20)))
    async with SyslogServer() as server:
        siem = sink(f"syslog+tcp://127.0.0.1:{server.port}")
        async with running_sinks(settings, {"siem": siem}):
            await until(lambda: len(server.messages) >= 5, "the first events")
            await server.cut()
            known = set(server.ids)
            await publish_all(settings, tmp_path, *intents(*range(20, 40)))
            server.messages.clear()
            await server.start()
            await until(lambda: known | set(server.ids) >= set(ids(*range(40))), "the others")


async def test_a_syslog_server_receives_no_event_twice(settings: Settings, tmp_path: Path) -> None:
    async with SyslogServer() as server:
        declared = {"siem": sink(f"syslog+tcp://127.0.0.1:{server.port}")}
        for numbers in (range(3), range(3, 6)):
            await publish_all(settings, tmp_path, *intents(*numbers))
            async with running_sinks(settings, declared, pace=Timing(settle=0.0)) as sinks:
                await until(partial(_settled, sinks), "the delivery")
        await until(lambda: len(server.ids) >= 6, "all of them, read")
        assert server.ids == ids(*range(6))


async def test_events_the_stream_dropped_before_delivery_are_counted(settings: Settings) -> None:
    stream = MemoryStream()
    stream.say(*intents(1, 2, 3, 4))
    with Receiver() as receiver:
        declared = {"siem": sink(receiver.url, events=["call.all*"])}
        async with running_sinks(settings, declared, stream=stream.stream()) as sinks:
            await until(lambda: "4 delivered, 0 behind, 0 rejected, 0 lost" in state(sinks), "four")
        stream.say(*intents(5, 6, 7))
        stream.forget(1, 5, 6)
        async with running_sinks(settings, declared, stream=stream.stream()) as sinks:
            await until(
                lambda: "1 delivered, 0 behind, 0 rejected, 2 lost" in state(sinks), "two lost"
            )
    assert _delivered(receiver) == ids(1, 2, 3, 4, 7)


async def test_a_new_stream_is_delivered_from_its_start(settings: Settings) -> None:
    stream = MemoryStream()
    stream.say(*intents(1, 2, 3))
    with Receiver() as receiver:
        declared = {"siem": sink(receiver.url, begin="now")}
        async with running_sinks(settings, declared, stream=stream.stream()) as sinks:
            await until(lambda: "waiting" not in state(sinks) != "", "the sink has started")
            stream.recreate()
            stream.say(*intents(4))
            await until(lambda: _delivered(receiver) == ids(4), "the first of the new stream")


async def test_datagrams_are_sent_and_one_too_long_is_counted(
    settings: Settings, tmp_path: Path
) -> None:
    await publish_all(settings, tmp_path, *intents(1, arguments="x" * 66_000), *intents(2))
    with Datagrams() as port:
        siem = sink(f"syslog+udp://127.0.0.1:{port.port}")
        async with running_sinks(settings, {"siem": siem}) as sinks:
            async with asyncio.timeout(PATIENCE):
                assert (await port.messages()).event["id"] == "c2.allowed"
            await until(lambda: "1 delivered, 0 behind, 1 rejected" in state(sinks), "both")


async def test_a_sink_receives_only_selected_events(settings: Settings, tmp_path: Path) -> None:
    await publish_all(
        settings, tmp_path, *intents(1, customer="bolt"), denied(2), *intents(3), *intents(4)
    )
    with Receiver() as receiver:
        siem = sink(receiver.url, events=["call.den*", "call.all*"], customers=["acme"])
        other = sink(receiver.url + "/other", events=["key.*"])
        async with running_sinks(settings, {"siem": siem, "other": other}) as sinks:
            await until(lambda: "3 delivered, 0 behind" in str(sinks.states()), "three events")
    assert _delivered(receiver) == ["c2.denied", *ids(3, 4)]
    assert {each.path for each in receiver.received} == {"/hook"}


async def test_a_receiver_that_was_down_gets_everything_and_another_is_not_delayed(
    settings: Settings, tmp_path: Path
) -> None:
    away = Receiver()
    with Receiver() as well:
        declared = {"away": sink(away.url), "well": sink(well.url)}
        async with running_sinks(settings, declared) as sinks:
            await publish_all(settings, tmp_path, *intents(*range(30)))
            await until(lambda: "is unreachable" in sinks.states().get("away", ""), "the reason")
            await until(lambda: _delivered(well) == ids(*range(30)), "the other receiver")
            with away:
                await until(
                    lambda: set(_delivered(away)) == set(ids(*range(30))),
                    "the receiver that was down",
                )


async def test_a_restart_continues_where_the_sink_was(settings: Settings, tmp_path: Path) -> None:
    with Receiver() as receiver:
        declared = {"siem": sink(receiver.url, headers={"Authorization": "Bearer ${env:TOKEN}"})}
        for numbers in (range(3), range(3, 6)):
            await publish_all(settings, tmp_path, *intents(*numbers))
            async with running_sinks(settings, declared) as sinks:
                await until(partial(_settled, sinks), "the acknowledged delivery")
    assert _delivered(receiver) == ids(*range(6))
    assert {each.headers["authorization"] for each in receiver.received} == {
        "Bearer a token of the receiver"
    }


async def test_a_reconfigured_sink_retains_its_counters(settings: Settings, tmp_path: Path) -> None:
    with Receiver() as first, Receiver() as second:
        declared = {"siem": sink(first.url)}
        async with running_sinks(settings, declared) as sinks:
            await publish_all(settings, tmp_path, *intents(1, 2))
            await until(lambda: "2 delivered" in state(sinks), "the first two")
            declared["siem"] = sink(second.url)
            last = 2
            while not second.received:
                last += 1
                await publish_all(settings, tmp_path, *intents(last))
                await asyncio.sleep(0.1)
            await until(lambda: int(state(sinks).split()[0]) >= last, "all of them")


async def test_only_one_of_two_audits_delivers_and_the_other_takes_over(
    settings: Settings, tmp_path: Path
) -> None:
    with Receiver() as receiver:
        declared = {"siem": sink(receiver.url)}
        async with running_sinks(settings, declared, "second") as second:
            async with running_sinks(settings, declared, "first") as first:
                await publish_all(settings, tmp_path, *intents(1, 2))
                both = (first, second)
                await until(
                    lambda: any("2 delivered" in state(each) for each in both), "by one of them"
                )
            await publish_all(settings, tmp_path, *intents(3))
            await until(lambda: len(_delivered(receiver)) == 3, "the third")
            assert second.states()
    assert _delivered(receiver) == ids(1, 2, 3)


async def test_a_sink_configured_now_does_not_receive_earlier_events(
    settings: Settings, tmp_path: Path
) -> None:
    await publish_all(settings, tmp_path, *intents(1))
    with Receiver() as receiver:
        async with running_sinks(settings, {"siem": sink(receiver.url, begin="now")}) as sinks:
            await until(lambda: state(sinks).startswith("0 delivered, 0 behind"))
            await until(lambda: "waiting" not in state(sinks), "the sink has started")
            await publish_all(settings, tmp_path, *intents(2))
            await until(lambda: receiver.received, "the second")
        assert _delivered(receiver) == ids(2)


async def test_splunk_receives_events_with_their_time(settings: Settings, tmp_path: Path) -> None:
    await publish_all(settings, tmp_path, denied(1), denied(2))
    with Receiver() as receiver:
        receiver.answer = lambda _: (200, b'{"text":"Success","code":0}')
        siem = sink(receiver.url, shape="splunk", format="ocsf")
        async with running_sinks(settings, {"siem": siem}):
            await until(lambda: receiver.received, "both")
        (result,) = receiver.received
    events = [json.loads(line) for line in result.body.split(b"\n")]
    assert [each["event"]["metadata"]["uid"] for each in events] == ["c1.denied", "c2.denied"]
    assert events[0]["time"] == 1_763_708_342.5
    assert (events[0]["source"], events[0]["sourcetype"]) == ("toolbus", "ocsf")


def _bulk(statuses: dict[str, int]) -> Any:
    """Return an answer of Elasticsearch that rejects some documents."""

    def answer(received: Received) -> tuple[int, bytes]:
        lines = received.body.splitlines()
        body = [json.loads(line)["create"]["_id"] for line in lines[::2]]
        items = [{"create": {"_id": each, "status": statuses.get(each, 201)}} for each in body]
        errors = any(each["create"]["status"] >= 300 for each in items)
        return 200, json.dumps({"errors": errors, "items": items}).encode()

    return answer


async def test_elasticsearch_gets_each_event_once_and_rejections_are_counted(
    settings: Settings, tmp_path: Path
) -> None:
    await publish_all(settings, tmp_path, *intents(1, 2, 3))
    with Receiver() as receiver:
        receiver.answer = _bulk({"c1.allowed": 409, "c2.allowed": 400})
        siem = sink(receiver.url, shape="elastic", index="events-test")
        async with running_sinks(settings, {"siem": siem}) as sinks:
            await until(lambda: "2 delivered, 0 behind, 1 rejected" in state(sinks))
        lines = [json.loads(line) for line in receiver.received[0].body.splitlines()]
    assert lines[0] == {"create": {"_index": "events-test", "_id": "c1.allowed"}}
    assert lines[1]["id"] == "c1.allowed"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", lines[1]["@timestamp"])


async def test_a_busy_elasticsearch_is_retried(settings: Settings, tmp_path: Path) -> None:
    await publish_all(settings, tmp_path, *intents(1, 2))
    with Receiver() as receiver:
        receiver.answer = _bulk({"c2.allowed": 429})
        async with running_sinks(settings, {"siem": sink(receiver.url, shape="elastic")}) as sinks:
            await until(lambda: "it returned status 429" in state(sinks), "the reason")
            receiver.answer = _bulk({"c1.allowed": 409})
            await until(lambda: "2 delivered, 0 behind, 0 rejected" in state(sinks))


async def test_only_an_event_that_is_too_large_is_dropped(
    settings: Settings, tmp_path: Path
) -> None:
    await publish_all(settings, tmp_path, *intents(*range(10)))
    with Receiver() as receiver:
        receiver.answer = lambda delivered: (413 if b"c7.allowed" in delivered.body else 204, b"")
        async with running_sinks(settings, {"siem": sink(receiver.url)}) as sinks:
            await until(lambda: "9 delivered, 0 behind, 1 rejected" in state(sinks))
        accepted = [each for each in receiver.received if b"c7.allowed" not in each.body]
    delivered = [json.loads(line)["id"] for each in accepted for line in each.body.splitlines()]
    assert sorted(delivered) == ids(*(number for number in range(10) if number != 7))


async def test_a_sink_that_rejects_everything_loses_no_event(
    settings: Settings, tmp_path: Path
) -> None:
    await publish_all(settings, tmp_path, *intents(1, 2))
    with Receiver() as receiver:
        receiver.status = 400
        async with running_sinks(settings, {"siem": sink(receiver.url)}) as sinks:
            await until(lambda: "rejects every event" in state(sinks), "the reason")
            receiver.received.clear()
            receiver.status = 200
            await until(lambda: "2 delivered, 0 behind, 0 rejected" in state(sinks))


async def test_a_missing_variable_is_named_and_nothing_is_sent_without_it(
    settings: Settings, tmp_path: Path
) -> None:
    await publish_all(settings, tmp_path, *intents(1))
    with Receiver() as receiver:
        siem = sink(receiver.url, headers={"Authorization": "Bearer ${env:NOT_THERE}"})
        async with running_sinks(settings, {"siem": siem}) as sinks:
            await until(lambda: "NOT_THERE" in state(sinks), "the reason")
        assert receiver.received == []


def _settled(sinks: SinkRegistry) -> bool:
    return state(sinks).startswith("3 delivered, 0 behind")


def _delivered(receiver: Receiver) -> list[str]:
    return [json.loads(line)["id"] for each in receiver.received for line in each.body.splitlines()]
