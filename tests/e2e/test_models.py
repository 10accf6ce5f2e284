"""Model requests of the official SDKs through a gateway: unchanged, paid, and recorded once."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from harness.clients.model_sdks import APPLICATIONS, one_of_many
from harness.models.mock_provider import Received
from harness.models.model_gateway import (
    PROVIDER_KEY,
    SECRETS,
    ModelGateway,
    cost,
    running_models,
)
from harness.services.guarded import TOKEN
from harness.waits import PATIENCE, until_blocking

PROMPT: list[Any] = [{"role": "user", "content": "hello"}]
TEXT = "hello w1 w2 w3 w4 "
# `make models` runs these tests with separate services too
FUSED = "TOOLBUS_TEST_SEPARATE" not in os.environ
REQUESTS = 200
CALL_ID, SERVED_BY, FALLBACKS = "x-toolbus-call-id", "x-toolbus-model", "x-toolbus-fallbacks"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelGateway]:
    """Run a gateway with mock providers."""
    with running_models(tmp_path_factory.mktemp("models"), fused=FUSED) as gateway:
        yield gateway


@pytest.fixture
def models(running: ModelGateway) -> ModelGateway:
    """Return the gateway. Its providers have no records."""
    running.forget()
    return running


@pytest.fixture
def gpt(models: ModelGateway) -> Iterator[openai.OpenAI]:
    """Return the SDK of OpenAI."""
    with models.openai() as client:
        yield client


@pytest.fixture
def claude(models: ModelGateway) -> Iterator[anthropic.Anthropic]:
    """Return the SDK of Anthropic."""
    with models.anthropic() as client:
        yield client


# -- the SDKs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_list_models_and_stream_with_base_url_and_key(
    models: ModelGateway, name: str
) -> None:
    body = {"model": "team-fast", "messages": PROMPT, "stream": True}
    headers = {"authorization": f"Bearer {SECRETS['bot']}"}
    with httpx2.Client(base_url=f"{models.url}/v1/", headers=headers) as client:
        listed = client.get("models").json()["data"]
        sent = client.post("chat/completions", json=body | APPLICATIONS[name], timeout=PATIENCE)
    assert "team-fast" in [each["id"] for each in listed]
    assert sent.headers["content-type"].startswith("text/event-stream")
    *_, last, end = (each for each in sent.text.split("\n\n") if each.startswith("data:"))
    assert end == "data: [DONE]"
    assert json.loads(last.removeprefix("data:"))["usage"]["completion_tokens"] > 0


def test_the_openai_sdk_works_unchanged(gpt: openai.OpenAI, models: ModelGateway) -> None:
    chat = gpt.chat.completions.create(model="team-fast", messages=PROMPT, seed=7)
    assert chat.choices[0].message.content == TEXT
    assert chat.usage
    response = gpt.responses.create(model="mock/mock", input="hello")
    assert response.output_text == TEXT
    assert gpt.embeddings.create(model="mock/mock", input="hello").data[0].embedding == [0.5] * 4
    sent = models.mock.received()
    assert [each.path for each in sent] == ["/chat/completions", "/responses", "/embeddings"]
    # Without a limit in the request, the reserved one is sent.
    limited = {"model": "mock", "messages": PROMPT, "seed": 7, "max_completion_tokens": 8192}
    assert sent[0].body == limited


def test_the_openai_sdk_streams(gpt: openai.OpenAI, models: ModelGateway) -> None:
    chunks = list(gpt.chat.completions.create(model="team-fast", messages=PROMPT, stream=True))
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == TEXT
    assert all(each.choices for each in chunks)  # usage was not requested
    asked = gpt.chat.completions.create(
        model="team-fast", messages=PROMPT, stream=True, stream_options={"include_usage": True}
    )
    assert list(asked)[-1].usage
    with gpt.responses.stream(model="mock/mock:chunks=200", input="hello") as stream:
        assert stream.get_final_response().output_text.endswith("w198 w199 ")
    assert [each.ended for each in models.mock.until_ended(3)] == ["complete"] * 3


def test_the_anthropic_sdk_works_unchanged(
    claude: anthropic.Anthropic, models: ModelGateway
) -> None:
    message = claude.messages.create(model="claude/mock", max_tokens=64, messages=PROMPT)
    assert [each.text for each in message.content if each.type == "text"] == [TEXT]
    with claude.messages.stream(model="claude/mock", max_tokens=3, messages=PROMPT) as stream:
        assert "".join(stream.text_stream) == "hello w1 w2 "
        assert stream.get_final_message().stop_reason == "max_tokens"
    counted = claude.messages.count_tokens(model="claude/mock:input=9", messages=PROMPT)
    assert counted.input_tokens == 9
    for request in models.mock.received():
        assert request.headers["x-api-key"] == PROVIDER_KEY
        assert "anthropic-version" in request.headers


def test_the_list_of_models_has_what_the_key_may_use(models: ModelGateway) -> None:
    with models.openai() as bot, models.openai("narrow") as narrow:
        listed = {each.id for each in bot.models.list()}
        assert {"team-fast", "mock/mock", "spare/mock", "claude/mock"} <= listed
        assert [each.id for each in narrow.models.list()] == ["team-fast"]
        assert narrow.models.retrieve("team-fast").id == "team-fast"
    with models.anthropic("narrow") as claude:
        assert [each.id for each in claude.models.list()] == ["team-fast"]


# -- refusals --------------------------------------------------------------------------------------


def test_a_hidden_model_looks_unknown(models: ModelGateway) -> None:
    def refusal(model: str) -> dict[str, Any]:
        with pytest.raises(openai.NotFoundError) as refused:
            narrow.chat.completions.create(model=model, messages=PROMPT)
        assert refused.value.code == "model_not_found"
        return json.loads(refused.value.response.text.replace(model, "MODEL"))  # type: ignore[no-any-return]

    with models.openai("narrow") as narrow:
        assert refusal("mock/mock") == refusal("shaky") == refusal("absent/absent")
    assert models.mock.received() == []


def test_a_budget_stops_both_sdks_with_their_own_exceptions(models: ModelGateway) -> None:
    with models.openai("poor") as poor, models.anthropic("poor") as other:
        poor.chat.completions.create(model="mock/mock:output=12000", max_tokens=5, messages=PROMPT)
        spent = models.settled("poor").spent
        assert spent >= 24_000  # more than the reservation: the excess is debt
        with pytest.raises(openai.APIStatusError) as refused:
            poor.chat.completions.create(model="mock/mock", max_tokens=5, messages=PROMPT)
        with pytest.raises(anthropic.APIStatusError) as stopped:
            other.messages.create(model="claude/mock", max_tokens=5, messages=PROMPT)
        assert refused.value.status_code == stopped.value.status_code == 402
        assert "it resets at" in refused.value.message
        assert "it resets at" in stopped.value.message
        assert refused.value.response.headers["x-toolbus-error"] == "budget_exceeded"
        assert len(models.mock.received()) == 1
        assert models.settled("poor").spent == spent


def test_a_wrong_key_is_refused_in_the_form_of_the_api(models: ModelGateway) -> None:
    wrong = "tbk_unknown_a-secret-of-models"
    with (
        openai.OpenAI(base_url=f"{models.url}/v1", api_key=wrong, max_retries=0) as gpt,
        pytest.raises(openai.AuthenticationError),
    ):
        gpt.models.list()
    with (
        anthropic.Anthropic(base_url=models.url, api_key=wrong, max_retries=0) as claude,
        pytest.raises(anthropic.AuthenticationError),
    ):
        claude.messages.create(model="claude/mock", max_tokens=1, messages=PROMPT)


def test_a_malformed_body_is_refused_in_the_form_of_the_api(
    gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    many: Any = "many"
    with pytest.raises(openai.BadRequestError):
        gpt.chat.completions.create(model="mock/mock", messages=PROMPT, max_tokens=many)
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(
            model="claude/mock", max_tokens=1, messages=PROMPT, extra_body={"max_tokens": many}
        )


# -- guards ----------------------------------------------------------------------------------------


def test_a_stream_that_a_guard_blocks_ends_with_an_error_of_each_sdk(models: ModelGateway) -> None:
    prompt: list[Any] = [{"role": "user", "content": TOKEN}]
    received: list[Any] = []
    with models.openai("guarded") as gpt, models.anthropic("guarded") as claude:
        with pytest.raises(openai.APIError) as chat:
            received += gpt.chat.completions.create(model="team-fast", messages=prompt, stream=True)
        with pytest.raises(openai.APIError) as response:
            received += gpt.responses.create(model="mock/mock", input=TOKEN, stream=True)
        with pytest.raises(anthropic.APIError) as message:
            received += claude.messages.create(
                model="claude/mock", max_tokens=9, messages=prompt, stream=True
            )
        for error in (chat, response, message):
            assert "The guard 'tokens' found github-pat" in str(error.value)
            assert TOKEN not in str(error.value)
        assert isinstance(chat.value.body, dict)
        assert chat.value.body["code"] == "guard_blocked"
        chunks = list(gpt.chat.completions.create(model="team-fast", messages=PROMPT, stream=True))
        assert "".join(each.choices[0].delta.content or "" for each in chunks) == TEXT
    assert TOKEN not in str(received)


# -- fallbacks and failures ------------------------------------------------------------------------


def test_the_second_provider_serves_when_the_first_is_unavailable(
    gpt: openai.OpenAI, models: ModelGateway
) -> None:
    raw = gpt.chat.completions.with_raw_response.create(model="shaky", messages=PROMPT)
    assert raw.parse().choices[0].message.content == TEXT
    assert (raw.headers[SERVED_BY], raw.headers[FALLBACKS]) == ("spare/mock", "1")
    assert (len(models.mock.received()), len(models.spare.received())) == (1, 1)
    served = models.events(raw.headers[CALL_ID], "call.completed", "model.used")
    used = json.loads(served["model.used"]["detail"])
    assert (used["attempt"], used["alias"], used["server"]) == (1, "shaky", "spare")
    first = served["call.completed"]["parent_id"]
    failed = models.events(first, "call.allowed", "call.failed")["call.failed"]
    assert (failed["server"], failed["code"], failed["charge"]) == ("mock", "model_refused", 0)


def test_an_error_of_the_request_does_not_fall_back(
    gpt: openai.OpenAI, models: ModelGateway
) -> None:
    with pytest.raises(openai.BadRequestError):
        gpt.chat.completions.create(model="refusing", messages=PROMPT)
    assert models.spare.received() == []


def test_a_stream_that_breaks_after_its_first_byte_does_not_fall_back(
    gpt: openai.OpenAI, models: ModelGateway
) -> None:
    received: list[str] = []
    stream = gpt.chat.completions.create(model="breaking", messages=PROMPT, stream=True)
    with pytest.raises(openai.APIError) as failed:
        received.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert received == ["", "hello ", "w1 "]
    assert failed.value.message
    assert models.spare.received() == []


def test_a_killed_provider_ends_the_stream_and_the_next_request_falls_back(
    gpt: openai.OpenAI, models: ModelGateway
) -> None:
    before = models.settled("bot").spent
    raw = gpt.chat.completions.with_raw_response.create(
        model="mortal", messages=PROMPT, stream=True, extra_body={"mock": "wait=2"}
    )
    stream, call_id = raw.parse(), raw.headers[CALL_ID]
    received = list(islice(stream, 3))
    assert [each.choices[0].delta.content for each in received] == ["", "hello ", "w1 "]
    models.victim.kill()
    try:
        with pytest.raises(openai.APIError):
            list(stream)
        assert_charged_by_estimate(models, call_id, models.settled("bot").spent - before)
        again = gpt.chat.completions.with_raw_response.create(model="mortal", messages=PROMPT)
        assert (again.headers[SERVED_BY], again.headers[FALLBACKS]) == ("spare/mock", "1")
    finally:
        models.victim.start()


def test_a_client_that_disconnects_pays_for_what_it_used(
    gpt: openai.OpenAI, models: ModelGateway
) -> None:
    before = models.settled("bot").spent
    raw = gpt.chat.completions.with_raw_response.create(
        model="team-fast", messages=PROMPT, stream=True, extra_body={"mock": "wait=2"}
    )
    with raw.parse() as stream:
        received = list(islice(stream, 3))
    assert len(received) == 3
    (request,) = models.mock.until_ended(1)
    assert (request.ended, request.parts) == ("gone", 2)
    call_id = raw.headers[CALL_ID]
    assert_charged_by_estimate(models, call_id, charged_for(models, before))


def charged_for(models: ModelGateway, before: int) -> int:
    """Wait until a call is charged, and return the charge."""
    charged: int = until_blocking(lambda: models.settled("bot").spent - before, "the charge")
    return charged


def assert_charged_by_estimate(models: ModelGateway, call_id: str, spent: int) -> None:
    """Check the charge of a stream that ended after two parts of text."""
    used = models.events(call_id, "call.allowed", "model.used")["model.used"]
    detail = json.loads(used["detail"])
    assert (detail["cut"], detail["estimated"], detail["streamed"]) == (True, True, True)
    assert 2 <= detail["output_tokens"] <= 4
    tokens = {"input": detail["input_tokens"], "output": detail["output_tokens"]}
    assert used["charge"] == cost(tokens) == spent


# -- the books -------------------------------------------------------------------------------------


def test_executed_recorded_and_charged_requests_are_the_same(models: ModelGateway) -> None:
    before = models.settled("race").spent
    with (
        models.openai("race") as gpt,
        models.anthropic("race") as claude,
        ThreadPoolExecutor(32) as threads,
    ):
        list(threads.map(lambda number: one_of_many(gpt, claude, number), range(REQUESTS)))
    executed = [*models.mock.received(), *models.spare.received()]
    assert len(executed) == REQUESTS + REQUESTS // 8  # those of `shaky` are sent twice
    assert all(each.ended in ("complete", "refused") for each in executed)
    expected = sum(cost(each.usage) for each in executed if each.ended == "complete")
    assert models.settled("race").spent - before == expected
    rows = models.cluster.eventual_rows(
        "SELECT event, charge, detail FROM events WHERE key = 'race'",
        lambda rows: ended(rows) == len(executed),
    )
    counts = {name: sum(row["event"] == name for row in rows) for name in EVENTS}
    assert counts["call.allowed"] == len(executed)
    assert counts["call.completed"] + counts["call.failed"] == len(executed)
    outcomes = [row for row in rows if row["event"] in ("call.completed", "call.failed")]
    assert sum(row["charge"] for row in outcomes) == expected
    used = [json.loads(row["detail"]) for row in rows if row["event"] == "model.used"]
    assert sum(each["charge"] for each in used) == expected
    assert sum(each["output_tokens"] for each in used) == sum(
        each.usage.get("output", 0) for each in executed if each.ended == "complete"
    )


EVENTS = ("call.allowed", "call.completed", "call.failed", "model.used")


def ended(rows: list[dict[str, Any]]) -> int:
    """Return the number of outcomes whose other events are there too."""
    outcomes = sum(row["event"] in ("call.completed", "call.failed") for row in rows)
    completed = sum(row["event"] == "call.completed" for row in rows)
    used = sum(row["event"] == "model.used" for row in rows)
    return outcomes if used >= completed else -1


def test_the_key_of_a_provider_is_in_no_error_event_or_log(
    gpt: openai.OpenAI, models: ModelGateway
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        gpt.chat.completions.create(model="mock/mock:status=401", messages=PROMPT)
    assert sent_key(models.mock.received()[-1]) == PROVIDER_KEY
    assert PROVIDER_KEY not in refused.value.response.text
    models.events(refused.value.response.headers[CALL_ID], "call.failed")
    rows = models.cluster.rows("SELECT * FROM events")
    logs = [each.read_text() for each in models.cluster.state_dir.glob("*.log")]
    assert logs
    for text in (*map(str, rows), *logs):
        assert PROVIDER_KEY not in text


def sent_key(request: Received) -> str:
    """Return the provider's key in a request."""
    return request.headers["authorization"].removeprefix("Bearer ")


# -- cache -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_equal_request_is_answered_from_the_cache(
    gpt: openai.OpenAI, models: ModelGateway, *, stream: bool
) -> None:
    def ask(**headers: str) -> tuple[Any, str]:
        with gpt.chat.completions.with_streaming_response.create(
            model="cached/mock", messages=PROMPT, stream=stream, extra_headers=headers
        ) as response:
            return response.headers, response.read().decode()

    (first, text), (second, replayed) = ask(), ask()
    assert [each["x-toolbus-cache"] for each in (first, second)] == ["miss", "hit"]
    assert first["x-toolbus-cache-key"] == second["x-toolbus-cache-key"]
    assert (text, "age" in first, "age" in second) == (replayed, False, True)
    assert ask(**{"cache-control": "no-store"})[0]["x-toolbus-cache"] == "bypass"
    assert ask(**{"cache-control": "max-age=0, No-Cache"})[0]["x-toolbus-cache"] == "miss"
    assert len(models.mock.received()) == 3
    hit = models.events(second[CALL_ID], "call.completed", "model.used")
    used = json.loads(hit["model.used"]["detail"])
    assert (hit["call.completed"]["charge"], used["cache"]) == (0, "hit")
    assert used["saved"] > 0
    entry = second["x-toolbus-cache-key"]
    show = ("cache", "show", "--entry", entry)
    (shown,) = until_blocking(lambda: models.command(*show)["responses"], "the entry")
    assert (shown["provider"], shown["model"]) == ("cached", "mock")
    assert models.command("cache", "purge", "--entry", entry) == {"removed": 1}
    assert ask()[0]["x-toolbus-cache"] == "miss"
