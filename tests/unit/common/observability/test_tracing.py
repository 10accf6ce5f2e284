"""Spans: their names and attributes, and the options from the environment."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.errors import UpstreamDeadError
from toolbus_common.observability.trace_context import (
    child_of,
    entered,
    is_sampled,
    parent_based,
    span_id,
    trace_id,
)
from toolbus_common.observability.tracing import (
    CLIENT,
    NOTHING,
    Span,
    Tracer,
    bound,
    current,
    enter,
    recording,
)
from toolbus_common.observability.tracing.context import MOST_LINKS
from toolbus_common.observability.tracing.otel_env import TracingError, exporting
from toolbus_common.observability.tracing.sampling import SamplerError, sampler_of

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = THEIRS[:-2] + "00"
TRACES = st.integers(1, 2**128 - 1).map("{:032x}".format)
HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


class SpanList:
    """A list of the recorded spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def take(self, span: Span) -> None:
        self.spans.append(span)


@pytest.fixture
def kept() -> Iterator[list[Span]]:
    sink = SpanList()
    with recording.to(sink, sampler_of("parentbased_always_on", "")):
        yield sink.spans


# -- sampling -------------------------------------------------------------------------------


@given(trace=TRACES)
def test_ratios_of_zero_and_one_are_exact(trace: str) -> None:
    assert not sampler_of("traceidratio", "0")(trace, None)
    assert sampler_of("traceidratio", "1")(trace, None)


@given(trace=TRACES)
def test_a_trace_sampled_at_a_small_ratio_is_sampled_at_larger_ones(trace: str) -> None:
    small, large = sampler_of("traceidratio", "0.2"), sampler_of("traceidratio", "0.6")
    assert large(trace, None) or not small(trace, None)


def test_a_ratio_samples_about_that_share() -> None:
    half = sampler_of("traceidratio", "0.5")
    spread = ["0" * 16 + f"{n * (2**64 // 1000):016x}" for n in range(1000)]
    assert sum(half(trace, None) for trace in spread) in (500, 501)


@pytest.mark.parametrize("root", ["always_on", "always_off", "traceidratio"])
def test_only_parent_based_samplers_follow_the_caller(root: str) -> None:
    alone, following = sampler_of(root, "0.5"), sampler_of(f"parentbased_{root}", "0.5")
    for trace in ("0" * 31 + "1", "f" * 32):
        assert following(trace, None) == alone(trace, None)
        for parent_sampled in (True, False):
            assert following(trace, parent_sampled) is parent_sampled
            assert alone(trace, parent_sampled) == alone(trace, None)


@pytest.mark.parametrize(
    ("name", "argument"), [("sometimes", ""), ("traceidratio", "2"), ("traceidratio", "few")]
)
def test_an_unknown_sampler_is_rejected_with_the_valid_ones(name: str, argument: str) -> None:
    with pytest.raises(SamplerError, match="must be"):
        sampler_of(name, argument)


def test_the_sampling_decision_is_propagated() -> None:
    never = sampler_of("parentbased_always_off", "")
    for parent, sampler, goes_on in [
        ("", never, False), (THEIRS, never, True), (UNSAMPLED, never, False),
        ("", parent_based, True), (UNSAMPLED, parent_based, False),
    ]:  # fmt: skip
        ours, above = entered(parent, sampler)
        assert is_sampled(ours) is goes_on
        assert is_sampled(child_of(ours)) is goes_on
        assert above == (span_id(parent) if parent else "")


# -- spans -----------------------------------------------------------------------------------


def test_nothing_is_recorded_by_default() -> None:
    assert Tracer("policy").span("toolbus.decide", THEIRS) is NOTHING


def test_an_unsampled_trace_records_nothing(kept: list[Span]) -> None:
    with Tracer("policy").span("toolbus.decide", UNSAMPLED) as span:
        assert span is NOTHING
        with Tracer("policy").below("toolbus.reserve") as inner:
            inner.note("toolbus.decision", "allowed")
    assert kept == []


def test_a_span_is_a_child_of_the_current_one(kept: list[Span]) -> None:
    tracer = Tracer("executor")
    with tracer.span("toolbus.execute", THEIRS) as outer:
        with tracer.below("tools/call say", CLIENT) as inner:
            assert current() is inner
            assert bound() == inner.traceparent
        assert current() is outer
    assert [span.name for span in kept] == ["tools/call say", "toolbus.execute"]
    assert kept[0].parent_id == span_id(kept[1].traceparent)
    assert kept[1].parent_id == span_id(THEIRS)
    assert {trace_id(span.traceparent) for span in kept} == {trace_id(THEIRS)}
    assert current() is NOTHING


def test_tasks_do_not_see_each_others_spans(kept: list[Span]) -> None:
    async def work(name: str) -> None:
        with Tracer("policy").span(name, THEIRS) as span:
            await asyncio.sleep(0)
            assert current() is span

    async def together() -> None:
        await asyncio.gather(*map(work, "abc"))

    asyncio.run(together())
    assert {span.name for span in kept} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UpstreamDeadError("The upstream at http://secret cannot be reached."), "upstream_dead"),
        (TimeoutError(), "timeout"), (asyncio.CancelledError(), "cancelled"),
        (ValueError("a secret"), "ValueError"),
    ],
)  # fmt: skip
def test_an_error_is_recorded_by_type_without_message(
    kept: list[Span], error: BaseException, kind: str
) -> None:
    with (
        pytest.raises(type(error)),
        Tracer("executor").span("toolbus.execute", THEIRS),
    ):
        raise error
    assert kept[0].attributes == {"error.type": kind}
    assert kept[0].error == kind


def test_a_span_ends_once(kept: list[Span]) -> None:
    with Tracer("policy").span("toolbus.decide", THEIRS) as span:
        span.end()
        ended = kept[0].ended
    assert len(kept) == 1
    assert kept[0].ended == ended >= kept[0].began


def test_a_request_continues_the_callers_span(kept: list[Span]) -> None:
    traceparent, above = enter(THEIRS)
    with Tracer("ingress").entrance(traceparent, above, "tools/call"):
        pass
    assert kept[0].traceparent == traceparent
    assert kept[0].parent_id == span_id(THEIRS)


def test_batched_work_is_linked_to_each_span_once(kept: list[Span]) -> None:
    other = child_of(THEIRS)
    with Tracer("audit").linked("toolbus.insert", [f"{THEIRS},{other}", "", THEIRS, "nonsense"]):
        pass
    assert kept[0].links == [THEIRS, other]
    assert kept[0].parent_id == ""
    assert trace_id(kept[0].traceparent) != trace_id(THEIRS)


def test_links_are_bounded_and_none_means_no_span(kept: list[Span]) -> None:
    tracer = Tracer("audit")
    assert tracer.linked("toolbus.insert", ["", "nonsense"]) is NOTHING
    with tracer.linked("toolbus.insert", [child_of(THEIRS) for _ in range(MOST_LINKS + 9)]):
        pass
    assert len(kept[0].links) == MOST_LINKS


# -- the environment -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {}, {"OTEL_SERVICE_NAME": "x"}, {**HERE, "OTEL_SDK_DISABLED": "true"},
        {**HERE, "OTEL_TRACES_EXPORTER": "none"},
    ],
)  # fmt: skip
def test_no_traces_are_exported_without_an_endpoint(environ: dict[str, str]) -> None:
    assert exporting(environ) is None


def test_the_traces_endpoint_defaults_below_the_general_one() -> None:
    options = exporting(HERE)
    assert options is not None
    assert options.endpoint == "http://collector:4318/v1/traces"
    own = exporting({**HERE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t/own"})
    assert own is not None
    assert own.endpoint == "https://t/own"
    usual = exporting({"OTEL_TRACES_EXPORTER": "otlp"})
    assert usual is not None
    assert usual.endpoint == "http://localhost:4318/v1/traces"


def test_options_follow_the_environment_and_headers_stay_out_of_repr() -> None:
    options = exporting(
        {
            **HERE,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20s3cret, x=1",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "7",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod,service.name=mine",
        }
    )
    assert options is not None
    assert options.headers == {"authorization": "Bearer s3cret", "x": "1"}
    assert (options.gzip, options.timeout, options.delay, options.most_waiting) == (
        True,
        2.5,
        0.1,
        7,
    )
    assert options.resource_of("policy")["service.name"] == "mine"
    assert options.resource_of("policy")["deployment.environment.name"] == "prod"
    assert "s3cret" not in repr(options)


def test_each_service_has_its_own_name_unless_configured() -> None:
    options = exporting(HERE)
    assert options is not None
    assert options.resource_of("policy")["service.name"] == "toolbus-policy"
    named = exporting({**HERE, "OTEL_SERVICE_NAME": "gateway"})
    assert named is not None
    assert named.resource_of("policy")["service.name"] == "gateway"


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {"OTEL_TRACES_SAMPLER": "sometimes"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization"}, {"OTEL_BSP_SCHEDULE_DELAY": "soon"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "a=b%0D%0Ac:d"},
    ],
)  # fmt: skip
def test_an_invalid_variable_is_rejected_with_its_name(environ: dict[str, str]) -> None:
    with pytest.raises(TracingError, match=r"^OTEL_[A-Z_]+ .*\.$"):
        exporting({**HERE, **environ})
