"""Requests of the official SDKs to a real llama.cpp server through a gateway."""

import json
from itertools import islice
from typing import Any

import openai
import pytest

from harness.models.llama_gateway import LlamaGateway
from harness.models.llama_server import MODEL
from harness.models.model_gateway import cost
from harness.waits import until_blocking

PROMPT: list[Any] = [{"role": "user", "content": "Name three colours."}]
LONG: list[Any] = [{"role": "user", "content": "Count from one to one thousand in words."}]
MANY = 1500
CALL_ID, SERVED_BY = "x-toolbus-call-id", "x-toolbus-model"


def test_every_api_of_llama_cpp_answers_and_is_charged(llamas: LlamaGateway) -> None:
    models = llamas.models
    before = models.settled("bot").spent
    with models.openai() as gpt, models.anthropic() as claude:
        chat = gpt.chat.completions.create(model="team-llama", max_tokens=8, messages=PROMPT)
        assert chat.usage
        used = [(chat.usage.prompt_tokens, chat.usage.completion_tokens)]
        response = gpt.responses.create(
            model=f"local/{MODEL}", max_output_tokens=8, input="Name three colours."
        )
        assert response.usage
        used.append((response.usage.input_tokens, response.usage.output_tokens))
        message = claude.messages.create(
            model=f"local-messages/{MODEL}", max_tokens=8, messages=PROMPT
        )
        cached = message.usage.cache_read_input_tokens or 0
        used.append((message.usage.input_tokens + cached, message.usage.output_tokens))
        counted = claude.messages.count_tokens(model=f"local-messages/{MODEL}", messages=PROMPT)
    assert counted.input_tokens == used[0][0]
    assert all(given > 0 and 0 < made <= 8 for given, made in used)
    charged = sum(cost({"input": given, "output": made}) for given, made in used)
    assert models.settled("bot").spent - before == charged


def test_streams_of_llama_cpp_are_passed_on_and_charged(llamas: LlamaGateway) -> None:
    models = llamas.models
    with models.openai() as gpt, models.anthropic() as claude:
        raw = gpt.chat.completions.with_raw_response.create(
            model="team-llama", max_tokens=8, messages=PROMPT, stream=True
        )
        chunks = list(raw.parse())
        assert sum(bool(each.choices[0].delta.content) for each in chunks) >= 1
        with claude.messages.stream(
            model=f"local-messages/{MODEL}", max_tokens=8, messages=PROMPT
        ) as stream:
            assert stream.get_final_message().usage.output_tokens <= 8
    used = models.events(raw.headers[CALL_ID], "call.completed", "model.used")["model.used"]
    detail = json.loads(used["detail"])
    assert detail["streamed"]
    assert not detail.get("estimated", False)
    tokens = {"input": detail["input_tokens"], "output": detail["output_tokens"]}
    assert used["charge"] == cost(tokens) > 0


def test_a_disconnected_client_stops_the_generation(llamas: LlamaGateway) -> None:
    models = llamas.models
    with models.openai() as gpt:
        raw = gpt.chat.completions.with_raw_response.create(
            model=f"local/{MODEL}", max_tokens=MANY, messages=LONG, stream=True
        )
        with raw.parse() as stream:
            received = list(islice(stream, 4))
        assert len(received) == 4
        used = models.events(raw.headers[CALL_ID], "model.used")["model.used"]
        detail = json.loads(used["detail"])
        assert (detail["cut"], detail["estimated"]) == (True, True)
        assert 0 < detail["output_tokens"] < MANY
        # The server's only other work was that stream, so it answers only if it stopped it.
        assert gpt.chat.completions.create(model=f"local/{MODEL}", max_tokens=1, messages=PROMPT)


def test_a_server_killed_in_mid_stream_is_replaced_by_the_second(llamas: LlamaGateway) -> None:
    models = llamas.models
    with models.openai() as gpt:
        raw = gpt.chat.completions.with_raw_response.create(
            model="team-llama", max_tokens=MANY, messages=LONG, stream=True
        )
        assert raw.headers[SERVED_BY] == f"local/{MODEL}"
        stream = raw.parse()
        assert len(list(islice(stream, 3))) == 3
        llamas.local.kill()
        try:
            with pytest.raises(openai.APIError):
                list(stream)
            again = gpt.chat.completions.with_raw_response.create(
                model="team-llama", max_tokens=4, messages=PROMPT
            )
            assert again.headers[SERVED_BY] == f"backup/{MODEL}"
        finally:
            llamas.local.start()

        def serves() -> bool:
            last = gpt.chat.completions.with_raw_response.create(
                model="team-llama", max_tokens=1, messages=PROMPT
            )
            return bool(last.headers[SERVED_BY] == f"local/{MODEL}")

        until_blocking(serves, "the first server is used again")
