"""Exports and sinks: configuration, allowed addresses, framing."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from harness.builders.configurations import configured
from toolbus_audit.delivery.task_reconciler import TaskReconciler
from toolbus_audit.siem.base import SinkError
from toolbus_audit.siem.records import Record, records_of
from toolbus_audit.siem.rfc5424 import message_of, octet_counted
from toolbus_audit.siem.syslog_sink import StreamTransport
from toolbus_cli.errors import CommandError
from toolbus_cli.evidence.export import moment
from toolbus_common.config import Configuration, Export, Sink
from toolbus_common.config_store.loading.loader import load
from toolbus_common.config_store.operator_targets import digest_of
from toolbus_common.config_store.redacted_view import exported, restored
from toolbus_common.egress import Egress, Target
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.errors import InvalidConfigurationError
from toolbus_common.nats.stream_reader import StreamEntry
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions

KEYS = {"access_key": "AKIA", "secret_key": "${env:S3_SECRET}"}
LAKE = {"to": "s3://events/lake", "endpoint": "https://s3.example", "credentials": KEYS}
SIEM = {"url": "https://siem.example/in", "headers": {"Authorization": "Splunk ${env:HEC}"}}


# -- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("export", "reason"),
    [
        ({"to": "exports"}, "absolute path"),
        ({"to": "/data/../etc"}, "absolute path"),
        ({"to": "s3://UPPER/x", "credentials": KEYS}, "s3://bucket/prefix"),
        ({"to": "s3://events"}, "needs 'credentials'"),
        ({"to": "s3://events/a//b", "credentials": KEYS}, "no empty"),
        ({"to": "s3://events/a/../b", "credentials": KEYS}, "no empty"),
        ({"to": "gs://events", "credentials": KEYS}, "not access_key"),
        ({"to": "gs://events"}, "for a bucket: {service_account}"),
        ({"to": "az://events", "credentials": {"account_name": "a"}}, "{account_key} or {sas_"),
        ({"to": "az://events", "credentials": {"sas_token": "x"}}, "needs 'endpoint'"),
        ({"to": "ftp://events"}, "gs://bucket/prefix or az://container/prefix"),
        ({"to": "/data", "credentials": {"password": "x"}}, "not password"),
        ({"to": "/data", "every": "now"}, "should match pattern"),
        ({"to": "/data", "endpoint": "https://u:p@h/x"}, "https://host"),
        ({"to": "/data", "events": ["call%"]}, "should match pattern"),
        ({"to": "/data", "format": "csv"}, "'jsonl', 'parquet' or 'ocsf'"),
    ],
)
def test_an_invalid_export_is_rejected_with_the_reason(export: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Export.model_validate(export)


@pytest.mark.parametrize(
    "url",
    ["siem.example:514", "syslog+tls://siem.example", "syslog+tcp://h:0", "syslog+udp://h:514/x",
     "syslog://h:514", "syslog+tls://h:port", "ftp://h/x"],
)  # fmt: skip
def test_a_sinks_destination_is_a_host_and_port(url: str) -> None:
    with pytest.raises(ValidationError):
        Sink(url=url)


def test_a_problem_of_a_sink_has_its_line() -> None:
    loaded = load("sinks:\n  siem:\n    url: syslog+tls://siem.example\n", {})
    assert [(problem.line, problem.path) for problem in loaded.problems] == [(3, "sinks.siem.url")]


def test_an_unset_variable_is_a_warning() -> None:
    loaded = load('sinks: {siem: {url: "https://h", headers: {A: "${env:NOT_THERE}"}}}', {})
    assert loaded.problems == ()
    assert [str(each) for each in loaded.warnings] == [
        "sinks.siem.headers.A: the environment has no NOT_THERE; set it"
    ]


# -- credentials -----------------------------------------------------------------------------


def test_credentials_are_never_shown_and_stay_bound_to_their_location() -> None:
    literal = {**LAKE, "credentials": {"access_key": "AKIA", "secret_key": "canary-secret"}}
    old = configured(
        exports={"lake": literal}, sinks={"siem": {**SIEM, "headers": {"A": "canary"}}}
    )
    shown = exported(old)
    assert "canary" not in str(shown)
    assert restored(configured(**shown), old) == old
    for section, name, elsewhere in (
        ("exports", "lake", {"endpoint": "https://other.example"}),
        ("sinks", "siem", {"url": "https://other.example"}),
    ):
        moved = {**shown, section: {name: {**shown[section][name], **elsewhere}}}
        with pytest.raises(InvalidConfigurationError):
            restored(configured(**moved), old)


def test_an_operators_approval_covers_the_destination_only() -> None:
    lake, siem = Export.model_validate(LAKE), Sink.model_validate(SIEM)
    assert digest_of(lake) == digest_of(lake.model_copy(update={"every": "5m"}))
    assert digest_of(lake) != digest_of(lake.model_copy(update={"endpoint": "https://b.example"}))
    assert digest_of(lake) != digest_of(lake.model_copy(update={"to": "/data"}))
    assert digest_of(siem) == digest_of(siem.model_copy(update={"format": "ocsf"}))
    assert digest_of(siem) != digest_of(siem.model_copy(update={"url": "https://b.example"}))


@pytest.mark.parametrize(
    ("sections", "place"),
    [
        ({"exports": {"far": {"to": "/srv/events"}}}, "exports.far.to"),
        ({"exports": {"far": LAKE}}, "exports.far.to"),
        ({"sinks": {"far": SIEM}}, "sinks.far.url"),
        ({"sinks": {"far": {"url": "syslog+tcp://127.0.0.1:514"}}}, "sinks.far.url"),
    ],
)
def test_a_destination_declared_over_http_needs_permission(
    sections: dict[str, Any], place: str
) -> None:
    new = configured(**sections)
    assert [
        problem["location"] for problem in RemoteRestrictions().violations(Configuration(), new)
    ] == [place]
    assert RemoteRestrictions().violations(new, new) == []
    narrowed = {
        section: {"far": {**entries["far"], "customers": ["acme"]}}
        for section, entries in sections.items()
    }
    assert RemoteRestrictions().violations(new, configured(**narrowed)) == []


def test_a_variable_newly_sent_to_an_existing_sink_needs_permission() -> None:
    old = configured(sinks={"far": {**SIEM, "headers": {}}})
    (problem,) = RemoteRestrictions().violations(old, configured(sinks={"far": SIEM}))
    assert problem["location"] == "sinks.far.headers.Authorization"
    assert (
        RemoteRestrictions(variables=("HEC",)).violations(old, configured(sinks={"far": SIEM}))
        == []
    )


# -- frames ----------------------------------------------------------------------------------


def test_a_message_is_framed_by_its_octets_and_cannot_forge_another() -> None:
    record = Record(1, "i", "call.denied x\n<1>", 0.0, '{"a":"é\\n"}'.encode())
    message = message_of(record, "ho st\n")
    assert message.startswith(
        b"<110>1 1970-01-01T00:00:00.000000Z host toolbus - call.deniedx<1> - "
    )
    assert octet_counted(message) == b"%d %b" % (len(message), message)


def client(*addresses: str) -> HttpClient:
    """Return a client of audit for which every name has these addresses."""

    def lookup(_target: Target) -> list[str]:
        return list(addresses)

    return HttpClient(CheckedResolver(Egress(), tls_to_public=True, lookup=lookup))


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_without_tls_nothing_is_sent_to_public_addresses(transport: str) -> None:
    sink = Sink(url=f"syslog+{transport}://siem.example:6514")
    mixed = client("192.0.2.1", "10.0.0.1")
    outlet = StreamTransport(sink, mixed, is_operator_named=lambda: True, host="h")
    with pytest.raises(SinkError, match="TOOLBUS_EGRESS_ALLOW"):
        await outlet.send([])
    if transport == "tcp":
        with pytest.raises(SinkError, match=r"syslog\+tls"):
            await StreamTransport(
                sink, client("93.184.216.34"), is_operator_named=lambda: True, host="h"
            ).send([])


DEEP = b'{"id":"i","at":1,"x":' + b"[" * 200_000


@pytest.mark.parametrize("form", ["jsonl", "ocsf"])
def test_a_line_a_sink_cannot_accept_is_skipped_and_counted(form: str) -> None:
    good = b'{"event":"call.denied","id":"good","at":1.5}'
    bad = (DEEP, b'{"id":"i","at":1e300}', b'{"id":7,"at":1}', b"{", b"", b"[]")
    kept = StreamEntry(7, "tb.event.call.denied.acme", b"\n".join((*bad, good)))
    other = StreamEntry(8, "tb.event.call.denied.bolt", good)
    sink = Sink.model_validate({"url": "https://h", "format": form, "customers": ["acme"]})
    records, unreadable = records_of(sink, [kept, other])
    assert [(each.sequence, each.id) for each in records] == [(7, "good")]
    assert unreadable == len(bad)


# -- reconciliation -------------------------------------------------------------------------


async def test_a_task_ends_with_its_entry_and_restarts_with_another() -> None:
    configured, running = {"a": 1, "b": 1}, set()

    async def work(name: str, entry: int) -> None:
        running.add((name, entry))
        try:
            await asyncio.Event().wait()
        finally:
            running.discard((name, entry))

    async with asyncio.timeout(60):
        task = asyncio.create_task(TaskReconciler(lambda: configured, work).run())
        for now in ({"a": 1, "b": 1}, {"a": 2}, {}):
            configured = now
            while running != set(now.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert running == set()


# -- times -----------------------------------------------------------------------------------


def test_times_are_days_timestamps_and_durations() -> None:
    assert moment("", 7.0) == 7.0
    assert moment("2025-11-21", 0) == datetime(2025, 11, 21, tzinfo=UTC).timestamp()
    assert moment("2025-11-21T08:00:00+01:00", 0) == 1_763_708_400.0
    assert moment("2d", 0) < moment("1d", 0) < moment("1m", 0)
    with pytest.raises(CommandError, match="is not a time"):
        moment("yesterday", 0)
