"""Identity of model requests for the cache of responses."""

import json
from typing import Any

import pytest

from harness.services.call_runner import admitted
from toolbus_common.config import Provider, SemanticCache
from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    ModelCall,
)
from toolbus_executor.providers.cache.request_key import (
    LONGEST_TEXT,
    RequestKey,
    fingerprint_of,
    request_key,
)

SEMANTIC = SemanticCache()
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

INPUT_TEXT = {"type": "input_text", "text": "hello"}


def key_of(
    body: Any,
    semantic: SemanticCache | None = None,
    model_call: ModelCall | None = None,
    **more: Any,
) -> RequestKey | None:
    """Return the identity of a request with this body."""
    scope, fingerprint = more.pop("scope", "customer:acme"), more.pop("fingerprint", "")
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    call = admitted("m", **{"server": "p", "method": CHAT, **more})
    call = call.model_copy(update={"arguments": raw})
    return request_key(call, model_call or ModelCall(), scope, fingerprint, semantic)


def user(content: Any, **more: Any) -> dict[str, Any]:
    """Return a request whose last message is a user's."""
    return {"messages": [{"role": "user", "content": content}], **more}


def text_of(body: Any, method: str = CHAT, semantic: SemanticCache = SEMANTIC, **model: Any) -> str:
    """Return the text that is compared with those of other requests; empty for none."""
    key = key_of(body, semantic, ModelCall(**model), method=method)
    assert key is not None
    return key.similar.text if key.similar is not None else ""


def test_the_model_and_the_order_of_members_are_not_compared() -> None:
    one = key_of(b'{"model":"a","temperature":1,"messages":[],"stream":false}')
    assert one == key_of(b'{"messages":[],"model":"b","temperature":1}')


@pytest.mark.parametrize(
    "other",
    [
        {"body": user("hello", temperature=0)},
        {"body": user("Hello")},
        {"body": user("hello", seed=None)},
        {"server": "q"},
        {"scope": "team:support"},
        {"fingerprint": "another address"},
        {"method": MESSAGES},
        {"model_call": ModelCall(stream=True)},
        {"model_call": ModelCall(beta="files")},
    ],
)
def test_every_other_difference_is_another_identity(other: dict[str, Any]) -> None:
    assert key_of(**{"body": user("hello"), **other}) != key_of(user("hello"))


def test_members_cannot_be_shifted_into_each_other() -> None:
    assert key_of(b'{"a":"1","b":"2"}') != key_of(b'{"a":"1\\"1:b3:\\"2"}')


@pytest.mark.parametrize(
    "request_",
    [
        {"body": b"[]"},
        {"body": b"{"},
        {"body": user("x", previous_response_id="resp_1")},
        {"body": user("x", conversation="conv_1")},
        {"body": {}, "method": COUNT_TOKENS},
        {"body": user("x"), "model_call": ModelCall(choices=2)},
    ],
)
def test_other_requests_are_not_cached(request_: dict[str, Any]) -> None:
    assert key_of(**request_) is None


def test_state_that_is_null_is_no_state() -> None:
    assert key_of(user("x", previous_response_id=None)) is not None
    assert key_of({"input": "x"}, method=EMBEDDINGS) is not None


@pytest.mark.parametrize(
    ("body", "method"),
    [
        (user("hello"), CHAT),
        (user([{"type": "text", "text": "hello"}]), CHAT),
        (user([{"type": "text", "text": "hello", "cache_control": {}}]), MESSAGES),
        ({"input": "hello"}, RESPONSES),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]},
            RESPONSES,
        ),
        ({"input": [{"type": "message", "role": "user", "content": "hello"}]}, RESPONSES),
    ],
)
def test_the_text_of_the_last_user_message_is_compared(body: Any, method: str) -> None:
    assert text_of(body, method) == "hello"


@pytest.mark.parametrize(
    "body",
    [
        user([{"type": "text", "text": "what is this"}, IMAGE]),
        {"messages": [{"role": "user", "content": [IMAGE]}, {"role": "user", "content": "this"}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "4"}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "4"}]}]},
        {"messages": [{"role": "user", "content": "x", "name": "ann"}]},
        {"messages": []},
        {"messages": ""},
        user("x", temperature=1.5),
        user("x", temperature="hot"),
        user("x" * (LONGEST_TEXT + 1)),
        user(""),
        {"prompt": "x"},
    ],
)
def test_other_requests_share_only_with_equal_ones(body: Any) -> None:
    assert text_of(body) == ""


def test_requests_that_offer_tools_are_compared_only_if_declared() -> None:
    assert text_of(user("hello"), tools=1) == ""
    assert text_of(user("hello"), tools=1, semantic=SemanticCache(tools=True)) == "hello"


def test_everything_but_the_last_text_is_the_context() -> None:
    def context(body: Any, semantic: SemanticCache = SEMANTIC) -> bytes:
        key = key_of(body, semantic)
        assert key is not None
        assert key.similar is not None
        return key.similar.context

    earlier = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    first = context(user("hello"))
    assert context(user("good morning")) == first
    assert context(user("hello", max_tokens=5)) != first
    assert context({"messages": earlier}) != first
    assert context(user("hello"), SemanticCache(embeddings="e/m")) != first


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("What is the refund policy?", "Tell me the refund policy.", True),
        ("Add 17 and 25", "Add 17 and 26", False),
        ("Is it safe?", "Is it not safe?", False),
        ("Is it safe?", "Isn't it safe?", False),
        ("Translate 'hello'", "Translate 'goodbye'", False),
        ("Mail ann@example.com", "Mail eve@example.com", False),
        ("See v1.2.", "see V1.2", True),
    ],
)
def test_numbers_quotations_addresses_and_negations_are_literals(
    one: str, other: str, *, equal: bool
) -> None:
    def literals(text: str) -> tuple[str, ...]:
        key = key_of(user(text), SEMANTIC)
        assert key is not None
        assert key.similar is not None
        return key.similar.literals

    assert (literals(one) == literals(other)) is equal


def test_the_settings_of_the_provider_are_part_of_the_identity() -> None:
    one, other = (Provider(kind="openai", url=f"http://{host}/v1") for host in ("a", "b"))
    assert fingerprint_of(one) != fingerprint_of(other)
    assert fingerprint_of(one) == fingerprint_of(one.model_copy(update={"concurrency": 1}))
