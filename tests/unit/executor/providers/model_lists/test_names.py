"""Names in the lists of models that providers return, hostile ones included."""

import json
from typing import Any

import pytest

from toolbus_common.config import Provider
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.providers.model_lists.names import (
    LARGEST_LIST,
    LONGEST_TOKEN,
    MAX_MODELS,
    page_in,
    shown_names,
)

OPENAI = Provider(kind="openai", url="http://127.0.0.1:9/v1")
ANTHROPIC = Provider(kind="anthropic", credentials={"key": "k"})
GEMINI = Provider(kind="gemini", credentials={"key": "k"})
PAIR = {"access_key": "a", "secret_key": "s"}
BEDROCK = Provider(kind="bedrock", region="eu-central-1", credentials=PAIR)
VERTEX = Provider(kind="vertex", project="p", location="eu", credentials={"key": "k"})
NOTHING = KnownSecrets()


def names_in(provider: Provider, body: bytes, secrets: KnownSecrets) -> tuple[str, ...]:
    return shown_names(page_in(provider, body).names, secrets)


def named(*names: Any) -> list[dict[str, Any]]:
    return [{"id": name, "object": "model"} for name in names]


@pytest.mark.parametrize(
    ("provider", "body", "names"),
    [
        (OPENAI, {"object": "list", "data": named("b", "a", "b", "o/c:7")}, ("a", "b", "o/c:7")),
        (OPENAI, {"models": [{"name": "x"}], "data": named("gemma.gguf")}, ("gemma.gguf",)),
        (OPENAI, named("bare"), ("bare",)),
        (OPENAI, {"object": "list", "data": None}, ()),
        (OPENAI, {}, ()),
        (ANTHROPIC, {"data": [{"type": "model", "id": "haiku"}], "has_more": False}, ("haiku",)),
        (GEMINI, {"models": [{"name": "models/gemini-2.5-flash"}]}, ("gemini-2.5-flash",)),
        (GEMINI, {"data": named("other")}, ()),
        (GEMINI, named("other"), ()),
        (VERTEX, {"publisherModels": [{"name": "publishers/google/models/gemini-2.5-pro"}]},
         ("gemini-2.5-pro",)),
        (BEDROCK, {"modelSummaries": [{"modelId": "amazon.nova-lite-v1:0"}]},
         ("amazon.nova-lite-v1:0",)),
        (BEDROCK, {"inferenceProfileSummaries": [{"inferenceProfileId": "eu.x"}, {}]}, ("eu.x",)),
    ],
)  # fmt: skip
def test_each_api_names_its_models(provider: Provider, body: Any, names: tuple[str, ...]) -> None:
    assert names_in(provider, json.dumps(body).encode(), NOTHING) == names


def test_names_that_no_request_can_have_are_omitted() -> None:
    texts = ["", " ", "a b", "a\n", "ä", "x" * 257, ".", "..", "\u202egemma"]
    wrong: list[Any] = [None, 7, ["a"], {}, *texts]
    body = json.dumps({"data": named("good", *wrong)}).encode()
    assert names_in(OPENAI, body, NOTHING) == ("good",)


def test_a_name_with_a_secret_of_the_provider_is_omitted() -> None:
    secrets = KnownSecrets(["sk-a-secret-of-the-provider"])
    body = json.dumps({"data": named("good", "x-sk-a-secret-of-the-provider")}).encode()
    assert names_in(OPENAI, body, secrets) == ("good",)


def test_a_long_list_is_cut() -> None:
    body = json.dumps({"data": named(*(f"m{number:05}" for number in range(3000)))}).encode()
    names = names_in(OPENAI, body, NOTHING)
    assert (len(names), names[0]) == (MAX_MODELS, "m00000")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"7",
        b'"data"',
        b'{"data":[7]}',
        b'{"data":{"id":"a"}}',
        b'{"data":[{"id":"a"}',
        b'{"data":[{"id":"\xff"}]}',
        b'{"data":[' + b'{"id":' * 20_000,
        b"[" * 1_000_000,
        b'{"data":[{"id":"' + b"a" * LARGEST_LIST + b'"}]}',
    ],
)
def test_a_response_that_is_no_list_is_rejected(body: bytes) -> None:
    with pytest.raises(UpstreamInvalidError):
        names_in(OPENAI, body, NOTHING)


@pytest.mark.parametrize(
    ("body", "token"),
    [
        ({"nextPageToken": "n"}, "n"),
        ({"nextToken": "n"}, "n"),
        ({"nextToken": None}, ""),
        ({"nextToken": ["n"]}, ""),
        ({"nextToken": "n" * (LONGEST_TOKEN + 1)}, ""),
    ],
)
def test_the_token_of_the_next_page_is_read(body: Any, token: str) -> None:
    assert page_in(BEDROCK, json.dumps(body).encode()).next_token == token
