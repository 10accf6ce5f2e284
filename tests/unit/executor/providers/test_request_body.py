"""Bodies of requests to providers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.contracts.model_calls import CHAT, EMBEDDINGS, MESSAGES, RESPONSES
from toolbus_common.errors import InvalidError
from toolbus_executor.providers.request_body import GOVERNED, limit_field, rewritten

NAMES = st.text().filter(lambda name: name.casefold() not in GOVERNED)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES), st.booleans())
def test_only_the_model_and_the_usage_option_change(body: dict[str, Any], streamed: bool) -> None:  # noqa: FBT001
    raw, added = rewritten(json.dumps(body).encode(), "m/1", CHAT, streamed=streamed)
    result = json.loads(raw)
    assert result.pop("model") == "m/1"
    if streamed:
        assert result.pop("stream_options")["include_usage"] is True
        body.pop("stream_options", None)
    assert added == streamed
    body.pop("model", None)
    assert result == body


def test_values_keep_their_bytes() -> None:
    raw, _ = rewritten(b'{ "a" : [1.50,\n 1e2], "model":"x" }', "m", MESSAGES, streamed=True)
    assert raw == b'{"a":[1.50,\n 1e2],"model":"m"}'


@pytest.mark.parametrize(
    ("options", "added", "expected"),
    [
        ({"include_usage": True, "x": 1}, False, {"include_usage": True, "x": 1}),
        ({"include_usage": False, "x": 1}, True, {"include_usage": True, "x": 1}),
        (None, True, {"include_usage": True}),
        ("text", True, {"include_usage": True}),
    ],
)
def test_usage_is_requested_for_streams(options: Any, added: bool, expected: Any) -> None:  # noqa: FBT001
    raw, was_added = rewritten(
        json.dumps({"stream_options": options}).encode(), "m", CHAT, streamed=True
    )
    assert was_added is added
    assert json.loads(raw)["stream_options"] == expected


def test_a_repeated_member_is_sent_once() -> None:
    raw, _ = rewritten(
        b'{"max_tokens":1,"max_tokens":9,"mod\\u0065l":"x"}', "m", CHAT, streamed=False
    )
    assert raw == b'{"max_tokens":9,"model":"m"}'


@pytest.mark.parametrize(
    "member",
    [
        {"MODEL": "dear"},
        {"Max_Tokens": 10**6},
        {"\u017ftream": True},
        {"stream_options": {"Include_Usage": False}},
        {"models": ["dear"]},
        {"route": "fallback"},
        {"service_tier": "priority"},
        {"speed": "fast"},
        {"inference_geo": "us"},
        {"n_predict": 10**6},
        {"n_cmpl": 9},
    ],
)
def test_a_member_that_selects_another_model_or_price_is_rejected(member: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as caught:
        rewritten(json.dumps({"model": "m"} | member).encode(), "m", CHAT, streamed=True)
    assert caught.value.data["sent"] is False


@pytest.mark.parametrize(
    ("method", "member"),
    [
        (RESPONSES, {"n": 8}),
        (RESPONSES, {"max_tokens": 10**6}),
        (RESPONSES, {"max_completion_tokens": 0}),
        (MESSAGES, {"n": 8}),
        (MESSAGES, {"max_completion_tokens": 10**6}),
    ],
)
def test_a_limit_of_another_api_is_rejected(method: str, member: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match="belongs to another API") as caught:
        rewritten(json.dumps(member).encode(), "m", method, streamed=False)
    assert caught.value.data["sent"] is False
    harmless = {"n": 1, "max_completion_tokens": None}
    rewritten(json.dumps(harmless).encode(), "m", method, streamed=False)


def test_members_with_the_usual_price_are_sent() -> None:
    usual = {"service_tier": "auto", "speed": "standard", "inference_geo": None}
    raw, _ = rewritten(json.dumps(usual).encode(), "m", MESSAGES, streamed=False)
    assert json.loads(raw) == usual | {"model": "m"}


@pytest.mark.parametrize(
    ("method", "field", "given", "expected"),
    [
        (CHAT, "max_tokens", {}, {"max_tokens": 9}),
        (CHAT, "max_completion_tokens", {}, {"max_completion_tokens": 9}),
        (CHAT, "max_tokens", {"max_tokens": None}, {"max_tokens": 9}),
        (CHAT, "max_tokens", {"max_tokens": 0}, {"max_tokens": 9}),
        (CHAT, "max_tokens", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        (CHAT, "max_tokens", {"max_completion_tokens": 0}, {"max_tokens": 9}),
        (CHAT, "max_tokens", {"max_tokens": 5, "max_completion_tokens": 0}, {"max_tokens": 5}),
        (MESSAGES, "max_tokens", {}, {"max_tokens": 9}),
        (MESSAGES, "max_tokens", {"max_tokens": 0}, {"max_tokens": 0}),
        (RESPONSES, "max_output_tokens", {}, {"max_output_tokens": 9}),
        (RESPONSES, "max_output_tokens", {"max_output_tokens": 4}, {"max_output_tokens": 4}),
        (EMBEDDINGS, "max_tokens", {}, {}),
    ],
)
def test_a_request_without_a_limit_is_sent_with_the_reserved_one(
    method: str, field: str, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = json.dumps(given).encode()
    raw, _ = rewritten(body, "m", method, streamed=False, limit=(field, 9))
    assert json.loads(raw) == {"model": "m"} | expected


@pytest.mark.parametrize(
    ("method", "served", "field"),
    [
        (CHAT, {CHAT}, "max_tokens"),
        (CHAT, {CHAT, RESPONSES}, "max_completion_tokens"),
        (RESPONSES, {CHAT, RESPONSES}, "max_output_tokens"),
        (MESSAGES, {CHAT, RESPONSES, MESSAGES}, "max_tokens"),
    ],
)
def test_the_limit_is_sent_in_the_member_that_the_provider_knows(
    method: str, served: set[str], field: str
) -> None:
    assert limit_field(method, served) == field


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'{"a":', b'{"a":1}x', b"\xff"])
def test_an_invalid_body_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidError) as caught:
        rewritten(body, "m", CHAT, streamed=False)
    assert caught.value.data["sent"] is False
