"""The mock provider's replies are valid in the types of the official SDKs."""

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from harness.models.mock_provider import MockProvider

PROMPT: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockProvider]:
    """Run the provider."""
    with MockProvider(tmp_path_factory.mktemp("provider")).running() as provider:
        yield provider


@pytest.fixture
def gpt(provider: MockProvider) -> Iterator[openai.OpenAI]:
    """Return the SDK of OpenAI."""
    with openai.OpenAI(base_url=provider.url, api_key="sk-mock", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(provider: MockProvider) -> Iterator[anthropic.Anthropic]:
    """Return the SDK of Anthropic."""
    url = provider.url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=url, api_key="sk-mock", max_retries=0) as client:
        yield client


def test_replies_of_the_openai_api_are_valid(gpt: openai.OpenAI) -> None:
    raw = gpt.with_raw_response
    chat = raw.chat.completions.create(model="mock", messages=PROMPT)
    completion = ChatCompletion.model_validate_json(chat.text)
    assert completion.choices[0].message.content == "hello w1 w2 w3 w4 "
    response = Response.model_validate_json(raw.responses.create(model="m", input="hello").text)
    assert response.output_text == "hello w1 w2 w3 w4 "
    embedded = raw.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
    assert len(CreateEmbeddingResponse.model_validate_json(embedded.text).data) == 2
    assert gpt.embeddings.create(model="m", input="a").data[0].embedding == [0.5] * 4
    assert [model.id for model in gpt.models.list()] == ["mock"]


def test_streams_of_the_openai_api_are_valid(gpt: openai.OpenAI) -> None:
    chunks = list(
        gpt.chat.completions.create(
            model="mock:chunks=3,input=7",
            messages=PROMPT,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello w1 w2 "
    assert chunks[-1].usage
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (7, 3)
    events = list(gpt.responses.create(model="mock:chunks=3", input="hello", stream=True))
    valid: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    for event in events:
        valid.validate_python(event.model_dump(exclude_unset=True))
    with gpt.responses.stream(model="mock:chunks=3", input="hello") as stream:
        assert stream.get_final_response().output_text == "hello w1 w2 "


def test_replies_of_the_anthropic_api_are_valid(claude: anthropic.Anthropic) -> None:
    raw = claude.with_raw_response.messages
    message = raw.create(model="mock", max_tokens=2, messages=PROMPT)
    valid = Message.model_validate_json(message.text())
    assert (valid.stop_reason, valid.usage.output_tokens) == ("max_tokens", 2)
    counted = raw.count_tokens(model="mock:input=9", messages=PROMPT)
    assert MessageTokensCount.model_validate_json(counted.text()).input_tokens == 9
    adapter: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
    stream = claude.messages.create(
        model="mock:cached=5,input=8",
        max_tokens=9,
        messages=PROMPT,
        stream=True,
    )
    for event in stream:
        adapter.validate_python(event.model_dump(exclude_unset=True))
    with claude.messages.stream(
        model="mock:cached=5,input=8", max_tokens=9, messages=PROMPT
    ) as text:
        final = text.get_final_message()
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens) == (3, 5)


def test_errors_have_the_form_of_the_api(
    gpt: openai.OpenAI, claude: anthropic.Anthropic, provider: MockProvider
) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        gpt.responses.create(model="mock:status=429,retry=7", input="hello")
    assert refused.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.InternalServerError):
        claude.messages.create(model="mock:status=529", max_tokens=9, messages=PROMPT)
    with pytest.raises(openai.APIConnectionError):
        list(gpt.responses.create(model="mock:reset=2,gap=5", input="hello", stream=True))
    ended = [each.ended for each in provider.received()]
    assert ended[-3:] == ["refused", "refused", "reset"]


def test_the_provider_records_a_client_that_disconnects(
    gpt: openai.OpenAI, provider: MockProvider
) -> None:
    provider.forget()
    extra = {"mock": "wait=2,output=40"}
    with gpt.responses.create(model="m", input="hi", stream=True, extra_body=extra) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    (request,) = provider.until_ended(1)
    assert request.headers["authorization"] == "Bearer sk-mock"
    assert (request.ended, request.usage["output"], request.body["mock"]) == (
        "gone", 40, "wait=2,output=40",
    )  # fmt: skip
