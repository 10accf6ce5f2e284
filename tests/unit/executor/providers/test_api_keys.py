"""Choice of API keys, and their pauses."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_executor.providers.api_keys import (
    LONGEST_SECONDS,
    MAX_PAUSES,
    ApiKey,
    ApiKeys,
    key_lines,
)

A, B = ApiKey("a", b"a\r\n", 3), ApiKey("b", b"b\r\n", 1)


def test_keys_share_the_requests_by_weight() -> None:
    keys = ApiKeys([A, B])
    chosen = Counter(key.name for _ in range(4000) if (key := keys.choose("m", 0.0)))
    assert 2700 < chosen["a"] < 3300
    assert chosen["a"] + chosen["b"] == 4000


def test_a_paused_key_is_chosen_again_after_its_pause() -> None:
    keys = ApiKeys([A, B])
    keys.pause(A, "m", 429, 7.0, 100.0)
    assert {keys.choose("m", 106.9) for _ in range(50)} == {B}
    keys.pause(B, "m", 401, 0.0, 100.0)
    assert keys.paused(106.9) == ["a", "b"]
    assert keys.paused(107.0) == ["b"]
    assert keys.choose("m", 107.0) is A


def test_the_first_attempt_has_a_key_even_if_all_are_paused() -> None:
    keys = ApiKeys([A, B])
    keys.pause(A, "m", 429, 60.0, 0.0)
    keys.pause(B, "m", 429, 30.0, 0.0)
    assert keys.choose("m", 1.0) is B, "its pause ends first"
    assert keys.choose("m", 1.0, ["b"]) is None


@pytest.mark.parametrize(("status", "seconds"), [(429, 10), (401, 300), (402, 300), (403, 300)])
def test_the_pause_depends_on_the_status(status: int, seconds: float) -> None:
    keys = ApiKeys([A])
    keys.pause(A, "m", status, 0.0, 5.0)
    assert keys.paused(5.0 + seconds - 0.1) == ["a"]
    assert keys.paused(5.0 + seconds) == []


@pytest.mark.parametrize("status", [402, 403, 429])
def test_a_refusal_of_one_model_leaves_the_key_to_the_others(status: int) -> None:
    keys = ApiKeys([A, B])
    keys.pause(A, "m", status, 0.0, 0.0)
    assert {keys.choose("m", 1.0) for _ in range(50)} == {B}
    assert {keys.choose("other", 1.0) for _ in range(200)} == {A, B}


def test_a_provider_without_keys_is_never_paused() -> None:
    keys = ApiKeys([])
    key = keys.choose("m", 0.0)
    assert key is not None
    assert key.line == b""
    keys.pause(key, "m", 429, 60.0, 0.0)
    assert keys.choose("m", 0.0) is key


def test_a_tried_key_is_not_chosen_again() -> None:
    keys = ApiKeys([A, B])
    assert {keys.choose("m", 0.0, ["a"]) for _ in range(50)} == {B}
    assert keys.choose("m", 0.0, ["a", "b"]) is None


@given(st.floats(0, 1e9), st.integers(400, 599), st.floats(0, 1e6))
def test_no_pause_exceeds_the_limit(retry_after: float, status: int, now: float) -> None:
    keys = ApiKeys([A])
    keys.pause(A, "m", status, retry_after, now)
    assert keys.paused(now + LONGEST_SECONDS + 1) == []


def test_the_number_of_pauses_is_limited() -> None:
    keys = ApiKeys([A, B])
    for number in range(2 * MAX_PAUSES):
        keys.pause(A, f"m{number}", 403, 0.0, 0.0)
    assert {keys.choose("another", 1.0) for _ in range(200)} == {A, B}
    assert len(keys._until) == MAX_PAUSES


def test_the_header_of_a_key_depends_on_the_kind_and_is_never_shown() -> None:
    (key,) = key_lines("openai", {"k": "canary"}, {"k": 5})
    assert (key.line, key.weight) == (b"authorization: Bearer canary\r\n", 5)
    assert "canary" not in repr(key)
    (key,) = key_lines("anthropic", {"k": "canary"}, {})
    assert (key.line, key.weight) == (b"x-api-key: canary\r\n", 1)


def test_a_key_is_sent_although_it_has_the_name_of_a_key_of_aws() -> None:
    for kind in ("openai", "anthropic", "gemini"):
        (key,) = key_lines(kind, {"access_key": "canary"}, {})
        assert b"canary" in key.line
    (key,) = key_lines("bedrock", {"access_key": "canary", "secret_key": "s"}, {})
    assert key.line == b""


@pytest.mark.parametrize("value", ["", "a\r\nx: y", "a\nb", "\u00fc", "a\0"])
def test_a_key_that_no_header_can_contain_is_rejected_without_its_value(value: str) -> None:
    with pytest.raises(ValueError, match="the API key 'k'") as caught:
        key_lines("openai", {"k": value}, {})
    assert not value or value not in str(caught.value)
