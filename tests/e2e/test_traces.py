"""One trace from the client to the tool: through HTTP, the bus, `_meta`, programs, and audit."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import pytest

from conformance.upstream import FixtureServer
from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.gateway.cluster import Cluster
from harness.gateway.family_gateway import stateless
from harness.receivers.otlp_collector import Collector, Received
from harness.waits import until_blocking
from toolbus_common.config import Configuration

SECRET, CODER, ASKER = (f"tbk_{name}_a-secret-of-traces" for name in ("bot", "coder", "asker"))
CANARY = "canary-argument-7d1c"
TOKEN = "canary-token-of-the-collector"
CALL = ("tools/call fix__greet", "toolbus.decide", "toolbus.execute", "tools/call greet")


@dataclass
class Traced:
    """A gateway that exports its traces to a collector, and the server behind it."""

    cluster: Cluster
    collector: Collector
    fixture: FixtureServer

    def client(self, secret: str = SECRET) -> Client:
        return self.cluster.client(secret)

    def last_call(self, trace: str) -> dict[str, Any]:
        """Return the last call of a trace that the server received."""
        calls = [each for each in self.fixture.seen()["last"] if each["method"] == "tools/call"]
        found: list[dict[str, Any]] = [
            each for each in calls if trace in each["headers"]["traceparent"]
        ]
        return found[-1]


@pytest.fixture(scope="module", params=["separate", "fused"])
def traced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Traced]:
    """Run separate and fused services: the traces are the same."""
    fixture = FixtureServer(tmp_path_factory.mktemp("fixture"))
    with Collector() as collector:
        cluster = Cluster(
            tmp_path_factory.mktemp("cluster"),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{TOKEN}",
            OTEL_TRACES_SAMPLER="parentbased_always_off",
            OTEL_BSP_SCHEDULE_DELAY="50",
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_METRIC_EXPORT_INTERVAL="200",
        )
        keys = {
            "bot": key(SECRET, budget={"usd": 5, "per": "day"}),
            "coder": key(CODER, code_mode=True),
            "asker": key(ASKER, approve=["fix__greet"]),
        }
        servers = {"fix": {"url": fixture.url}}
        declared = {"servers": servers, "keys": keys, "prices": {"fix__greet": 0.001}}
        fused = request.param == "fused"
        with (
            fixture.running(),
            cluster.running(
                Configuration.model_validate(declared), fused=fused, additional=("codemode",)
            ),
        ):
            cluster.until_listed(cluster.client(SECRET), "fix__greet")
            cluster.until_listed(cluster.client(CODER), "executeToolCode")
            yield Traced(cluster, collector, fixture)


def call(client: Client, tool: str, parent: str, arguments: Any = None, **meta: str) -> Answer:
    """Make one call of the stateless family in the trace its message names."""
    params = {"name": tool, "arguments": arguments or {"name": CANARY}}
    body, headers = stateless("tools/call", params)
    body["params"]["_meta"] |= {"traceparent": parent, **meta}
    return client.post(body, **headers)


def parent_of(trace: str, *, sampled: bool = True) -> str:
    return f"00-{trace}-00000000000000aa-0{int(sampled)}"


def only(spans: list[Received], name: str) -> Received:
    (found,) = [span for span in spans if span.name == name]
    return found


def test_one_call_is_one_trace_of_all_services_and_the_server(traced: Traced) -> None:
    trace = token_hex(16)
    carried = {"tracestate": "vendor=abc", "baggage": "user=someone"}
    assert call(traced.client(), "fix__greet", parent_of(trace), **carried).status == 200
    parts = ("toolbus.reserve", "toolbus.record_intent")
    spans = traced.collector.of(trace, *CALL, *parts)
    edge, decided, executed, request = (only(spans, name) for name in CALL)
    assert edge.parent == "00000000000000aa"
    assert decided.parent == executed.parent == edge.id
    assert request.parent == executed.id
    for part in parts:
        assert only(spans, part).parent == decided.id
    assert [each.scope for each in (edge, decided, executed, request)] == [
        "ingress", "policy", "executor", "executor",
    ]  # fmt: skip
    assert [each.kind for each in (edge, decided, executed, request)] == [2, 1, 1, 3]
    last_call = traced.last_call(trace)
    below = f"00-{trace}-{request.id}-01"
    for item in (last_call["params"]["_meta"], last_call["headers"]):
        assert {name: item[name] for name in ("traceparent", *carried)} == {
            "traceparent": below, **carried,
        }  # fmt: skip


def test_spans_are_named_by_the_mcp_conventions(traced: Traced) -> None:
    trace = token_hex(16)
    call(traced.client(), "fix__greet", parent_of(trace))
    spans = traced.collector.of(trace, *CALL)
    edge, request = only(spans, CALL[0]), only(spans, CALL[3])
    for span, tool in ((edge, "fix__greet"), (request, "greet")):
        assert span.attributes["mcp.method.name"] == "tools/call"
        assert span.attributes["gen_ai.operation.name"] == "execute_tool"
        assert span.attributes["gen_ai.tool.name"] == tool
        assert not span.failed
    assert edge.attributes["mcp.protocol.version"] == "2026-07-28"
    assert edge.attributes["jsonrpc.request.id"] == "1"
    assert edge.service == "toolbus-ingress"


def test_a_trace_in_the_header_is_used_or_linked_to_the_messages_own(
    traced: Traced,
) -> None:
    trace, other = token_hex(16), token_hex(16)
    params = {"name": "fix__greet", "arguments": {"name": "x"}}
    traced.client().request("tools/call", params, traceparent=parent_of(trace))
    assert only(traced.collector.of(trace, *CALL), CALL[0]).parent == "00000000000000aa"
    params["_meta"] = {"traceparent": parent_of(other)}
    traced.client().request("tools/call", params, traceparent=parent_of(trace))
    edge = only(traced.collector.of(other, *CALL), CALL[0])
    assert edge.links == ((trace, "00000000000000aa"),)


def test_a_programs_calls_are_nested_in_its_run(traced: Traced) -> None:
    trace = token_hex(16)
    code = 'result = [fix.greet(name=each) for each in ["a", "b"]]'
    parent = parent_of(trace)
    answer = call(traced.client(CODER), "executeToolCode", parent, {"code": code})
    assert answer.json["result"].get("isError") is not True
    spans = traced.collector.of(
        trace, "tools/call executeToolCode", "toolbus.decide", "toolbus.run", *CALL, *CALL
    )
    by_id = {span.id: span for span in spans}
    run = only(spans, "toolbus.run")
    assert run.scope == "codemode"
    assert run.attributes["toolbus.calls"] == 2
    inner = [span for span in spans if span.name == "tools/call fix__greet"]
    assert [span.parent for span in inner] == [run.id, run.id]
    request = [span for span in spans if span.name == "tools/call greet"]
    assert {by_id[by_id[span.parent].parent].id for span in request} == {each.id for each in inner}


def test_audit_inserts_are_linked_to_the_spans_of_their_events(traced: Traced) -> None:
    trace = token_hex(16)
    call(traced.client(), "fix__greet", parent_of(trace))
    fields = {
        span.id
        for span in traced.collector.of(trace, *CALL, "toolbus.record_intent")
        if span.name in ("toolbus.record_intent", "toolbus.execute")
    }
    rows = traced.cluster.eventual_events(f"trace_id = '{trace}'", "call.allowed", "call.completed")
    assert len(rows) == 2

    def linked() -> set[str]:
        inserts = [span for span in traced.collector.spans if span.name == "toolbus.insert"]
        return {id_ for span in inserts for of, id_ in span.links if of == trace}

    until_blocking(lambda: linked() == fields, "the links of both events")


def test_a_failure_has_its_code_on_every_span(traced: Traced) -> None:
    trace = token_hex(16)
    answer = call(traced.client(), "fix__not_there", parent_of(trace))
    assert answer.code == "unknown_tool"
    spans = traced.collector.of(trace, "tools/call", "toolbus.decide")
    edge, decided = only(spans, "tools/call"), only(spans, "toolbus.decide")
    assert edge.failed
    assert edge.attributes["error.type"] == "unknown_tool"
    assert decided.attributes["toolbus.decision"] == "unknown_tool"
    assert "not_there" not in str(spans)
    malformed = token_hex(16)
    params = {"arguments": {}, "_meta": {"traceparent": parent_of(malformed)}}
    assert traced.client().request("tools/call", params).code == "invalid"
    (edge,) = traced.collector.of(malformed, "tools/call")
    assert edge.attributes["rpc.response.status_code"] == "-32602"


def test_an_approval_request_is_a_span_of_the_decision(traced: Traced) -> None:
    trace = token_hex(16)
    assert call(traced.client(ASKER), "fix__greet", parent_of(trace)).code == "approval_required"
    spans = traced.collector.of(trace, CALL[0], "toolbus.decide", "toolbus.approval")
    decided, request = only(spans, "toolbus.decide"), only(spans, "toolbus.approval")
    assert request.parent == decided.id
    assert decided.attributes["toolbus.decision"] == "approval_required"


def test_a_request_answered_by_ingress_is_a_span_and_an_unknown_method_names_none(
    traced: Traced,
) -> None:
    listed, unknown = token_hex(16), token_hex(16)
    traced.client().request("tools/list", {"_meta": {"traceparent": parent_of(listed)}})
    assert only(traced.collector.of(listed, "tools/list"), "tools/list").kind == 2
    traced.client().request("made/up", {"_meta": {"traceparent": parent_of(unknown)}})
    assert "made/up" not in str(traced.collector.of(unknown, "other"))


def test_services_export_readiness_and_span_counters_to_prometheus(
    traced: Traced,
) -> None:
    trace = token_hex(16)
    call(traced.client(), "fix__greet", parent_of(trace))
    traced.collector.of(trace, *CALL)
    client = traced.client()
    page = f"http://{traced.cluster.ops['ingress']}/metrics"
    until_blocking(
        lambda: re.search(rb'toolbus_spans_total{outcome="exported"} [1-9]', client.get(page).body),
        "exported spans are counted",
    )
    assert b'toolbus_service_ready{service="ingress"} 1.0' in client.get(page).body


def test_the_collector_receives_the_metrics_of_every_service(traced: Traced) -> None:
    call(traced.client(), "fix__greet", parent_of(token_hex(16)))
    wanted = {
        ("toolbus_calls_total", "outcome", "ok"),
        ("toolbus_decisions_total", "decision", "allowed"),
    }
    wanted |= {
        ("toolbus_service_ready", "service", each) for each in ("ingress", "policy", "executor")
    }
    until_blocking(
        lambda: (
            wanted
            <= {
                (each.name, *label)
                for each in traced.collector.metrics
                if each.value >= 1
                for label in each.labels.items()
            }
        ),
        "metrics of every service",
    )


def test_nothing_is_recorded_of_a_trace_that_is_not_sampled(traced: Traced) -> None:
    untold, later = token_hex(16), token_hex(16)
    assert call(traced.client(), "fix__greet", parent_of(untold, sampled=False)).status == 200
    params = {"name": "fix__greet", "arguments": {"name": "of a call without a trace"}}
    assert traced.client().request("tools/call", params).status == 200
    unasked = traced.last_call("")["headers"]["traceparent"]
    assert unasked.endswith("-00")
    call(traced.client(), "fix__greet", parent_of(later))
    traced.collector.of(later, *CALL)
    # A service exports its spans in order: spans of these traces would have arrived before.
    assert {untold, unasked[3:35]} & {span.trace for span in traced.collector.spans} == set()
    last_call = traced.last_call(untold)
    assert last_call["params"]["_meta"]["traceparent"].endswith("-00")
    assert last_call["headers"]["traceparent"] == last_call["params"]["_meta"]["traceparent"]


def test_spans_contain_no_argument_no_key_and_no_secret(traced: Traced) -> None:
    trace = token_hex(16)
    call(traced.client(), "fix__greet", parent_of(trace), baggage=f"secret={CANARY}")
    traced.collector.of(trace, *CALL)
    sent = b"".join(traced.collector.bodies)
    assert b"fix__greet" in sent
    for word in (CANARY, SECRET, CODER, TOKEN):
        assert word.encode() not in sent
    assert TOKEN not in "".join(process.log for process in traced.cluster.every())
    assert traced.collector.headers[0]["authorization"] == f"Bearer {TOKEN}"
