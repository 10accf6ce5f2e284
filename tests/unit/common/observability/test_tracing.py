"""Spans: their names and attributes, and the options from the environment."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.errors import UpstreamDeadError
from toolbus_common.observability.otlp_env import OtlpError, exports_metrics, exports_traces
from toolbus_common.observability.trace_context import (
    Sampler,
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
from toolbus_common.observability.tracing.context import MAX_LINKS
from toolbus_common.observability.tracing.exporter import configured_sampler

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = THEIRS[:-2] + "00"
TRACES = st.integers(1, 2**128 - 1).map("{:032x}".format)
HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


class Kept:
    """Takes spans into a list."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def take(self, span: Span) -> None:
        self.spans.append(span)


@pytest.fixture
def kept() -> Iterator[list[Span]]:
    sink = Kept()
    with recording.to(sink, parent_based):
        yield sink.spans


# -- whether a trace is recorded -------------------------------------------------------------


def sampler_of(name: str, argument: str = "") -> Sampler:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_TRACES_SAMPLER", name)
        environment.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
        return configured_sampler()


NONE, SMALL, LARGE, ALL = (sampler_of("traceidratio", each) for each in ("0", "0.2", "0.6", "1"))


@given(trace=TRACES)
def test_ratios_of_none_and_all_are_exact(trace: str) -> None:
    assert not NONE(trace, None)
    assert ALL(trace, None)


@given(trace=TRACES)
def test_a_trace_sampled_at_a_small_ratio_is_sampled_at_larger_ones(trace: str) -> None:
    assert LARGE(trace, None) or not SMALL(trace, None)


def test_a_ratio_samples_about_that_share() -> None:
    half = sampler_of("traceidratio", "0.5")
    spread = ["0" * 16 + f"{n * (2**64 // 1000):016x}" for n in range(1, 1000)]
    assert sum(half(trace, None) for trace in spread) in (499, 500, 501)


@pytest.mark.parametrize("root", ["always_on", "always_off", "traceidratio"])
def test_only_parent_based_samplers_follow_the_caller(root: str) -> None:
    alone, following = sampler_of(root, "0.5"), sampler_of(f"parentbased_{root}", "0.5")
    for trace in ("0" * 31 + "1", "f" * 32):
        assert following(trace, None) == alone(trace, None)
        for parent_sampled in (True, False):
            assert following(trace, parent_sampled) is parent_sampled
            assert alone(trace, parent_sampled) == alone(trace, None)


def test_the_sampling_decision_applies_to_the_whole_trace() -> None:
    never = sampler_of("parentbased_always_off")
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


def test_nothing_is_recorded_of_a_trace_that_is_not(kept: list[Span]) -> None:
    with Tracer("policy").span("toolbus.decide", UNSAMPLED) as span:
        assert span is NOTHING
        with Tracer("policy").below("toolbus.reserve") as inner:
            inner.note("toolbus.decision", "allowed")
    assert kept == []


def test_a_span_is_below_the_one_under_way(kept: list[Span]) -> None:
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
def test_an_error_is_noted_by_its_kind_and_never_in_words(
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


def test_a_request_from_outside_begins_below_its_caller(kept: list[Span]) -> None:
    traceparent, above = enter(THEIRS)
    with Tracer("ingress").entrance(traceparent, above, "tools/call"):
        pass
    assert kept[0].traceparent == traceparent
    assert kept[0].parent_id == span_id(THEIRS)


def test_work_done_for_many_is_linked_to_each_of_them_once(kept: list[Span]) -> None:
    other = child_of(THEIRS)
    with Tracer("audit").linked("toolbus.insert", [f"{THEIRS},{other}", "", THEIRS, "nonsense"]):
        pass
    assert kept[0].links == [THEIRS, other]
    assert kept[0].parent_id == ""
    assert trace_id(kept[0].traceparent) != trace_id(THEIRS)


def test_links_are_bounded_and_without_any_there_is_no_span(kept: list[Span]) -> None:
    tracer = Tracer("audit")
    assert tracer.linked("toolbus.insert", ["", "nonsense"]) is NOTHING
    with tracer.linked("toolbus.insert", [child_of(THEIRS) for _ in range(MAX_LINKS + 9)]):
        pass
    assert len(kept[0].links) == MAX_LINKS


# -- the environment -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {}, {"OTEL_SERVICE_NAME": "x"}, {**HERE, "OTEL_SDK_DISABLED": "true"},
        {**HERE, "OTEL_TRACES_EXPORTER": "none"},
    ],
)  # fmt: skip
def test_no_traces_are_exported_without_an_endpoint(environ: dict[str, str]) -> None:
    assert not exports_traces(environ)


@pytest.mark.parametrize(
    "environ",
    [
        HERE, {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t/own"},
    ],
)  # fmt: skip
def test_traces_are_exported_on_request(environ: dict[str, str]) -> None:
    assert exports_traces(environ)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        (HERE, False), ({**HERE, "OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, True),
        ({**HERE, "OTEL_METRICS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)  # fmt: skip
def test_metrics_are_exported_only_where_that_is_requested(
    environ: dict[str, str],
    wanted: bool,  # noqa: FBT001
) -> None:
    assert exports_metrics(environ) is wanted


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
    ],
)  # fmt: skip
def test_an_unsupported_value_is_rejected_with_its_variable(environ: dict[str, str]) -> None:
    with pytest.raises(OtlpError, match=r"^OTEL_[A-Z_]+ .*\.$"):
        exports_traces({**HERE, **environ})


def test_a_header_that_the_sdk_would_log_is_rejected_without_its_value() -> None:
    for header in (
        "x-key: s3cret",
        "authorization=s3cret,half",
        "x-key=s3cret;b",
        "a=s3cret%0D%0Ab:c",
    ):
        with pytest.raises(OtlpError, match="OTEL_EXPORTER_OTLP_HEADERS") as raised:
            exports_traces({**HERE, "OTEL_EXPORTER_OTLP_HEADERS": header})
        assert "s3cret" not in str(raised.value)
    good = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20s3cret, x=1"}
    assert exports_traces({**HERE, **good})
