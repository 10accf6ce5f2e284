"""Translations of requests, responses and streams, compared with golden files and the SDKs.

After a deliberate change, `TOOLBUS_WRITE_GOLDEN=1 pytest` of this file rewrites the JSON files.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clients.model_sdks import (
    CHAT,
    MESSAGES,
    RESPONSES,
    accumulated,
    check_request,
    check_response,
    payloads,
)
from harness.models.translations import PAIRS, translation

GOLDEN = Path(__file__).parent / "golden"
_HELLO = [{"role": "user", "content": "Hi"}]
REQUESTS: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": _HELLO, "stream_options": {"include_usage": True}},
    MESSAGES: {"model": "m", "messages": _HELLO, "max_tokens": 10},
    RESPONSES: {"model": "m", "input": _HELLO},
}
_RANDOM = re.compile(r"\b(msg|fc|rs|call|toolu|resp|chatcmpl)([-_])[0-9a-f]{24}\b")


def cases(kind: str) -> list[tuple[str, str]]:
    pairs = yaml.safe_load((GOLDEN / f"{kind}.yaml").read_text())
    return [(pair, name) for pair, named in pairs.items() for name in named]


def source(kind: str, pair: str, name: str) -> Any:
    return yaml.safe_load((GOLDEN / f"{kind}.yaml").read_text())[pair][name]


def golden(kind: str, pair: str, name: str, made: Any) -> None:
    """Compare with the golden file, without random identifiers and times."""
    text = _RANDOM.sub(r"\1\2random", json.dumps(made))
    text = re.sub(r'(\\?"(?:created|created_at)\\?": ?)\d+', r"\g<1>0", text)
    path = GOLDEN / f"{kind}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get("TOOLBUS_WRITE_GOLDEN"):
        known.setdefault(pair, {})[name] = json.loads(text)
        path.write_text(json.dumps(known, indent=1) + "\n")
    assert known[pair][name] == json.loads(text)


def streamed(pair: str, events: list[Any]) -> bytes:
    used = translation(pair)
    used.request(REQUESTS[PAIRS[pair][0]] | {"stream": True})
    stream = used.stream()
    made = b""
    for event in events:
        data = event.encode() if isinstance(event, str) else json.dumps(event).encode()
        made += stream.feed("", data)
    return made + stream.end()


@pytest.mark.parametrize(("pair", "name"), cases("requests"))
def test_a_request_is_translated_to_a_valid_request_of_the_provider(pair: str, name: str) -> None:
    client, provider = PAIRS[pair]
    body = source("requests", pair, name)
    check_request(client, {key: value for key, value in body.items() if key not in _BETA})
    made = translation(pair).request(body)
    check_request(provider, made)
    golden("requests", pair, name, made)
    assert body == source("requests", pair, name), "the client's body was changed"


_BETA = {"context_management"}  # not in the stable types of the SDK


@pytest.mark.parametrize(("pair", "name"), cases("responses"))
def test_a_response_is_translated_to_a_valid_response_of_the_client(pair: str, name: str) -> None:
    client, provider = PAIRS[pair]
    body = source("responses", pair, name)
    check_response(provider, body)
    made = translation(pair).response(body)
    check_response(client, made)
    golden("responses", pair, name, made)


@pytest.mark.parametrize(("pair", "name"), cases("streams"))
def test_a_stream_is_translated_to_valid_events_of_the_client(pair: str, name: str) -> None:
    made = streamed(pair, source("streams", pair, name))
    golden("streams", pair, name, made.decode().split("\n\n"))
    if name in ("error", "cut"):
        (*_, last) = payloads(made)
        assert "error" in last or last["response"]["error"]
    else:
        final = accumulated(PAIRS[pair][0], made)
        check_response(PAIRS[pair][0], final)
        assert bool(final["usage"]) or "usage" not in json.dumps(source("streams", pair, name))


def test_a_response_repeats_the_fields_of_its_request() -> None:
    pair = translation("responses_to_chat")
    pair.request({"model": "m", "input": "Hi", "instructions": "Be brief.", "temperature": 0.5})
    made = pair.response(source("responses", "responses_to_chat", "text"))
    assert (made["instructions"], made["temperature"]) == ("Be brief.", 0.5)


def test_usage_ends_a_chat_stream_only_if_the_client_requests_it() -> None:
    events = source("streams", "chat_to_messages", "text")
    for requested in (False, True):
        pair = translation("chat_to_messages")
        options = {"stream_options": {"include_usage": True}} if requested else {}
        pair.request({"model": "m", "messages": [], "stream": True, **options})
        stream = pair.stream()
        made = b"".join(stream.feed("", json.dumps(event).encode()) for event in events)
        assert ("usage" in list(payloads(made))[-1]) is requested
        assert made.endswith(b"data: [DONE]\n\n")
