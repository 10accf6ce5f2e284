"""Identity of model requests for the cache of responses."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from toolbus_executor.providers.cache.request_key import RequestKey, fingerprint_of, request_key
from toolbus_executor.providers.cache.wording import LONGEST_TEXT, wording_of

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
        {"body": user("x", prompt={"id": "pmpt_1"})},
        {"body": user("x", background=True)},
        {"body": user("x", mcp_servers=[{"url": "https://example.com"}])},
        {"body": user("x", web_search_options={})},
        {"body": user("x", tools=[{"type": "web_search"}])},
        {"body": user("x", tools=[{"type": "function"}, {"type": "file_search"}])},
        {"body": user("x", tools=[{"type": "code_interpreter", "container": {"type": "auto"}}])},
        {"body": user("x", tools=[{"type": "mcp", "server_url": "https://example.com"}])},
        {"body": user("x", tools=[{"type": "web_search_20250305", "name": "web_search"}])},
        {"body": user("x", tools={"google_search": {}})},
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
        ({"input": "hello", "store": False}, RESPONSES),
        (
            {
                "input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
                "store": False,
            },
            RESPONSES,
        ),
        (
            {"input": [{"type": "message", "role": "user", "content": "hello"}], "store": False},
            RESPONSES,
        ),
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
        {"other": "x"},
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
    assert context(user(" Hello ")) == first
    assert context(user("good morning")) != first
    assert context(user("hello", max_tokens=5)) != first
    assert context({"messages": earlier}) != first
    assert context(user("hello"), SemanticCache(embeddings="e/m")) != first


def test_a_tool_of_the_client_does_not_prevent_caching() -> None:
    assert key_of(user("x", tools=[{"type": "function"}, {"type": "custom"}, {"name": "f"}]))
    assert key_of(user("x", tools=None, background=False))


def test_a_stored_response_is_not_shared_with_similar_requests() -> None:
    # Its id gives access to the conversation of another caller.
    assert text_of({"input": "hello"}, RESPONSES) == ""
    assert text_of({"input": "hello", "store": True}, RESPONSES) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the refund policy?", "Tell me the refund policy."),
        ("What is the refund policy?", "what's the refund policy"),
        ("What is the refund policy?", "Please tell me the refund policy"),
        ("What is the refund policy?", "Could you tell me the refund policy?"),
        ("What is the refund policy?", "What\u2019s the refund policy, please?"),
        ("How do I reset my password?", "how do I reset  my password"),
        ("Show the plans.", "Please show the plans."),
    ],
)
def test_only_polite_words_and_the_form_of_a_question_are_ignored(one: str, other: str) -> None:
    assert wording_of(one) == wording_of(other) is not None


MAIL = "Dear Sir or Madam, thank you for your letter of last week. " * 15


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Did Bob sue Alice?", "Did Alice sue Bob?"),
        ("How do I convert dollars to euros?", "How do I convert euros to dollars?"),
        ("Is a dog bigger than a cat?", "Is a cat bigger than a dog?"),
        (f"Translate this mail to French. {MAIL}", f"Translate this mail to German. {MAIL}"),
        ("Ist es sicher?", "Ist es nicht sicher?"),
        ("Est-ce sûr?", "Est-ce que ce n'est pas sûr?"),
        ("¿Es seguro?", "¿No es seguro?"),
        ("May I eat before the surgery?", "May I eat after the surgery?"),
        ("Is it safe?", "Is it not safe?"),
        ("Is it safe?", "Isn't it safe?"),
        ("Tell me the capital.", "Tell me not the capital."),
        ("Is it safe.", "Is it safe?"),
        ("Add 17 and 25", "Add 17 and 26"),
        ("Is -3 smaller?", "Is 3 smaller?"),
        ("What is the value of 5!?", "What is the value of 5?"),
        ("What is 1.5?", "What is 15?"),
        ("What is a+b?", "What is a-b?"),
        ("Mail ann@example.com", "Mail eve@example.com"),
        ("Which plan includes SSO?", "Which plan excludes SSO?"),
        ("US policy", "us policy"),
        ("Where do I cook Turkey?", "Where do I cook turkey?"),
        ("Tell me a joke.", "What is a joke?"),
        ("How do you say please?", "How do you say?"),
        ("What is vitamin A?", "What is vitamin?"),
        ("Do few people know?", "Do a few people know?"),
        ("Who is the president?", "Who is a president?"),
    ],
)
def test_texts_with_other_words_or_another_order_never_share_a_response(
    one: str, other: str
) -> None:
    first, second = wording_of(one), wording_of(other)
    assert first is None or first != second
    for method in (CHAT, MESSAGES):
        keys = [key_of(user(text), SEMANTIC, method=method) for text in (one, other)]
        contexts = {key.similar.context for key in keys if key is not None and key.similar}
        assert len(contexts) in (0, 2)


@pytest.mark.parametrize(
    "text",
    [
        "Translate 'hello'", 'Spell "the"', "Fix this: a", "Run `ls`", "one\ntwo",
        "say \u201ea\u201c",
        "Is it «x»", "x" * (LONGEST_TEXT + 1), "word " * LONGEST_TEXT, "", " ",
    ],
)  # fmt: skip
def test_quotations_code_and_long_texts_are_not_compared(text: str) -> None:
    assert wording_of(text) is None


WORDS = ("Bob", "Alice", "not", "no", "sue", "the", "a", "x", "1", "2", "nicht")


@given(st.lists(st.sampled_from(WORDS), min_size=2))
def test_texts_with_different_words_have_different_wordings(words: list[str]) -> None:
    first = wording_of(f"did {' '.join(words)}?")
    for other in (words[::-1], words[1:], [*words, "not"]):
        second = wording_of(f"did {' '.join(other)}?")
        assert first is None or (first == second) == (words == other)


def test_the_settings_of_the_provider_are_part_of_the_identity() -> None:
    one, other = (Provider(kind="openai", url=f"http://{host}/v1") for host in ("a", "b"))
    assert fingerprint_of(one) != fingerprint_of(other)
    assert fingerprint_of(one) == fingerprint_of(one.model_copy(update={"concurrency": 1}))
    for change in ({"headers": {"x-tenant": "b"}}, {"region": "eu"}):
        assert fingerprint_of(one) != fingerprint_of(one.model_copy(update=change))
    assert "secret" not in fingerprint_of(one.model_copy(update={"headers": {"x": "secret"}}))
