"""Partial decoding of model requests: what is read, and which bodies are rejected."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    MODEL_METHODS,
    RESPONSES,
)
from toolbus_ingress.models_api.request_reader import (
    MAX_CHOICES,
    InvalidBodyError,
    ModelRequest,
    read_request,
)

every_method = pytest.mark.parametrize("method", sorted(MODEL_METHODS))


def read(method: str, **fields: Any) -> ModelRequest:
    return read_request(method, json.dumps({"model": "fast", **fields}).encode())


def rejected(method: str, body: bytes) -> InvalidBodyError:
    with pytest.raises(InvalidBodyError) as caught:
        read_request(method, body)
    return caught.value


@every_method
def test_the_body_is_passed_on_byte_for_byte(method: str) -> None:
    body = b'{ "model" : "fast", "unknown": {"n": 1.10, "u": "\\u00e9\xc3\xa9"} }'
    found = read_request(method, body)
    assert (found.body, found.model, found.method) == (body, "fast", method)


@pytest.mark.parametrize(
    ("method", "fields", "output"),
    [
        (CHAT, {"max_tokens": 7}, 7),
        (CHAT, {"max_completion_tokens": 8}, 8),
        (CHAT, {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        (CHAT, {"max_tokens": 7, "n": 3}, 21),
        (CHAT, {"n": 3}, None),
        (CHAT, {}, None),
        (CHAT, {"max_output_tokens": 5}, None),
        (RESPONSES, {"max_output_tokens": 5}, 5),
        (RESPONSES, {"max_tokens": 5, "n": 4}, None),
        (MESSAGES, {"max_tokens": 6}, 6),
        (MESSAGES, {"max_tokens": 0}, 0),
        (EMBEDDINGS, {"max_tokens": 6}, 0),
        (COUNT_TOKENS, {}, 0),
    ],
)
def test_the_output_limit_covers_all_choices(
    method: str, fields: dict[str, Any], output: int | None
) -> None:
    assert read(method, **fields).output == output


def test_choices_tools_and_streaming_are_read() -> None:
    found = read(CHAT, n=4, stream=True, tools=[{"type": "function", "x": [1]}, {}])
    assert (found.choices, found.stream, found.tools) == (4, True, 2)
    plain = read(CHAT, n=None, stream=None, tools=None)
    assert (plain.choices, plain.stream, plain.tools) == (1, False, 0)


@pytest.mark.parametrize("method", [EMBEDDINGS, COUNT_TOKENS])
def test_a_request_without_output_is_never_streamed(method: str) -> None:
    assert not read(method, stream=True).stream


@pytest.mark.parametrize(
    ("method", "fields", "key"),
    [
        (CHAT, {"user": "ann"}, b'"ann"'),
        (CHAT, {"user": "ann", "prompt_cache_key": "k"}, b'"k"'),
        (RESPONSES, {"prompt_cache_key": "k"}, b'"k"'),
        (MESSAGES, {"metadata": {"user_id": "u"}}, b'{"user_id": "u"}'),
        (CHAT, {"metadata": {"user_id": "u"}}, b""),
        (CHAT, {}, b""),
    ],
)
def test_the_user_is_identified_by_the_raw_json(
    method: str, fields: dict[str, Any], key: bytes
) -> None:
    assert read(method, **fields).user_key == key


@every_method
@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"nope", b"[]", b"null", b'"model"', b"{", b'{"model":"a"', b'{"model":"a"}}',
        b'{"model":"a"} {"model":"b"}', b'{"model":"a","x":NaN}', b'{"model":"a","x":"\xff"}',
        b'{"model":"\xff"}', b"\xff\xfe{\x00", b'{"model":"a","x":[1,}', b"{'model':'a'}",
        b'{"model":"a","x":' + b"[" * 200_000, b'{"model":"a","x":' + b'{"x":' * 200_000,
        b'{"model":"a","user":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model":"a","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
    ids=range(20),
)  # fmt: skip
def test_a_malformed_body_is_rejected(method: str, body: bytes) -> None:
    assert rejected(method, body).reason.endswith(".")


@every_method
def test_a_request_must_name_its_model(method: str) -> None:
    error = rejected(method, b'{"messages":[]}')
    assert error.param == "model"
    assert "GET /v1/models" in error.reason


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": ["a"]}, "model"),
        ({"model": "x" * 513}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"n": 0}, "n"),
        ({"n": -1}, "n"),
        ({"n": MAX_CHOICES + 1}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_completion_tokens": True}, "max_completion_tokens"),
        ({"tools": {}}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{}, None]}, "tools[1]"),
    ],
)
def test_a_wrong_value_is_rejected_with_the_name_of_the_field(
    fields: dict[str, Any], param: str
) -> None:
    error = rejected(CHAT, json.dumps({"model": "fast", **fields}).encode())
    assert error.param == param
    assert f"'{param}'" in error.reason


def test_a_response_in_the_background_is_rejected_because_its_usage_is_unknown() -> None:
    body = b'{"model":"m","background":true}'
    with pytest.raises(InvalidBodyError, match="background"):
        read_request(RESPONSES, body)
    assert read_request(RESPONSES, body.replace(b"true", b"false")).model == "m"


def test_the_last_of_repeated_names_counts_as_for_executor() -> None:
    body = b'{"model":"a","max_tokens":1,"model":"b","max_tokens":9}'
    found = read_request(CHAT, body)
    assert (found.model, found.output) == ("b", 9)
    assert json.loads(body) == {"model": "b", "max_tokens": 9}


@every_method
@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_rejected(method: str, body: bytes) -> None:
    try:
        found = read_request(method, body)
    except InvalidBodyError:
        return
    assert found.model == json.loads(body)["model"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
fields = st.dictionaries(
    st.sampled_from(["model", "stream", "n", "tools", "max_tokens", "user", "metadata", "x"]),
    json_values,
)


@every_method
@given(body=fields)
def test_an_accepted_body_has_bounded_numbers(method: str, body: dict[str, Any]) -> None:
    try:
        found = read_request(method, json.dumps(body, ensure_ascii=False).encode(errors="replace"))
    except InvalidBodyError:
        return
    assert 1 <= found.choices <= MAX_CHOICES
    assert found.output is None or found.output >= 0
    assert found.model == body["model"]
