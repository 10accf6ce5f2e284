"""Metrics and trace attributes of model requests."""

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from prometheus_client import REGISTRY

from harness.receivers.otlp_collector import plain
from toolbus_common.contracts import CallAdmitted, ModelUsed, ProtocolFamily
from toolbus_common.contracts.model_calls import CHAT, EMBEDDINGS, MODEL_METHODS, ModelCall, Usage
from toolbus_common.observability.metrics import MODEL_TOKENS, exposition
from toolbus_common.observability.tracing import CLIENT, Span
from toolbus_common.observability.tracing.exporter import readable
from toolbus_executor.model_metrics import record_model_use
from toolbus_executor.tracing import (
    MODEL_OPERATIONS,
    model_request_attributes,
    model_span_name,
    model_usage_attributes,
)

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OPERATIONS = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
PROVIDERS = {each.value for each in gen_ai_attributes.GenAiProviderNameValues}


class Nowhere:
    def take(self, span: Span) -> None:
        """Discard the span."""


def used(**given: Any) -> ModelUsed:
    """Return the event of an answered model request. `given` overrides its fields."""
    fields = {
        "id": "m.used", "at": 1.0, "customer": "acme", "call_id": "m", "server": "claude",
        "tool": "haiku", "method": CHAT, **given,
    }  # fmt: skip
    return ModelUsed(**fields)


def admitted(method: str = CHAT) -> CallAdmitted:
    return CallAdmitted(
        call_id="m", reply_to="r", server="claude", tool="haiku", customer="acme", key="bot",
        family=ProtocolFamily.MODERN, deadline=1.0, traceparent=TRACE, method=method,
        arguments=b'{"messages":[{"role":"user","content":"a secret"}]}',
    )  # fmt: skip


def tokens(provider: str, direction: str, api: str = "chat") -> float:
    labels = {"provider": provider, "api": api, "direction": direction}
    return REGISTRY.get_sample_value("toolbus_model_tokens_total", labels) or 0.0


def test_tokens_are_counted_once_by_direction() -> None:
    for _ in range(2):
        record_model_use(used(server="one", input_tokens=90, cached_tokens=30, output_tokens=7))
    record_model_use(used(server="one", method=EMBEDDINGS, input_tokens=5))
    assert [tokens("one", each) for each in ("input", "cached_input", "output")] == [120, 60, 14]
    assert tokens("one", "input", "embeddings") == 5


def test_the_time_to_the_first_token_is_observed_only_for_streams() -> None:
    record_model_use(used(server="two", first_token_us=40_000))
    record_model_use(used(server="two"))
    found = exposition().decode()
    assert 'toolbus_model_first_token_seconds_count{provider="two"} 1.0' in found
    assert 'toolbus_model_first_token_seconds_bucket{le="0.05",provider="two"} 1.0' in found


def test_a_model_or_method_of_a_caller_is_no_label() -> None:
    record_model_use(
        used(server="three", tool="invented", method="models/invented", input_tokens=1)
    )
    assert tokens("three", "input", "other") == 1
    assert "invented" not in exposition().decode()
    assert "model" not in MODEL_TOKENS._labelnames


def test_more_cached_tokens_than_input_do_not_decrease_a_counter() -> None:
    record_model_use(used(server="four", input_tokens=1, cached_tokens=3))
    assert tokens("four", "input") == 0


def test_every_method_has_an_operation_of_the_conventions() -> None:
    assert MODEL_OPERATIONS.keys() == MODEL_METHODS
    assert set(MODEL_OPERATIONS.values()) - OPERATIONS == {"count_tokens"}


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_provider_has_a_name_of_the_conventions(kind: str) -> None:
    assert kind in PROVIDERS
    found = model_request_attributes(admitted(), ModelCall(), kind)
    assert found["gen_ai.provider.name"] == kind


def test_the_attributes_are_those_of_the_conventions() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI")}
    requested = ModelCall(alias="fast", stream=True, output=64, choices=2, attempt=1, tools=3)
    usage = Usage(input=9, cached=3, cache_write=2, output=5, reasoning=4)
    found = model_request_attributes(admitted(), requested, "anthropic")
    found |= model_usage_attributes(usage, "stop", 0.04, "haiku-20260101")
    assert {name for name in found if name.startswith("gen_ai.")} <= known
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "haiku",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.model": "haiku-20260101",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.04,
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "toolbus.server": "claude",
        "toolbus.attempt": 2,
    }


def test_attributes_that_are_not_known_are_left_out() -> None:
    found = model_request_attributes(admitted(), ModelCall(), "openai")
    assert not {"gen_ai.request.max_tokens", "gen_ai.request.choice.count"} & found.keys()
    assert model_usage_attributes(Usage()) == {
        "gen_ai.usage.input_tokens": 0,
        "gen_ai.usage.output_tokens": 0,
    }


def test_a_span_is_exported_with_the_attributes_and_without_content() -> None:
    span = Span(Nowhere(), "executor", model_span_name(admitted()), CLIENT, TRACE)
    attributes = model_request_attributes(admitted(), ModelCall(), "openai")
    attributes |= model_usage_attributes(Usage(), "length")
    for name, value in attributes.items():
        span.note(name, value)
    span.end()
    request: Any = encode_spans([readable(span)])
    (sent,) = request.resource_spans[0].scope_spans[0].spans
    assert sent.name == "chat haiku"
    (reasons,) = (a for a in sent.attributes if a.key == "gen_ai.response.finish_reasons")
    assert [each.string_value for each in reasons.value.array_value.values] == ["length"]
    assert plain(sent.attributes)["gen_ai.request.model"] == "haiku"
    assert b"secret" not in sent.SerializeToString()
