"""Translations under test: the API of the client and the API of the provider, by name."""

import json
from typing import Any

from harness.clients import model_sdks
from harness.clients.model_sdks import CHAT, MESSAGES, RESPONSES
from harness.models import own_api_types
from toolbus_executor.providers.endpoints.methods import CONVERSE, GENERATE
from toolbus_executor.providers.translation.base import StreamTranslation, Translation
from toolbus_executor.providers.translation.select import translation_for

MAX_OUTPUT = 4096  # of a request without a limit
PAIRS = {
    "messages_to_chat": (MESSAGES, CHAT),
    "chat_to_messages": (CHAT, MESSAGES),
    "responses_to_chat": (RESPONSES, CHAT),
    "responses_to_messages": (RESPONSES, MESSAGES),
    "chat_to_gemini": (CHAT, GENERATE),
    "messages_to_gemini": (MESSAGES, GENERATE),
    "responses_to_gemini": (RESPONSES, GENERATE),
    "chat_to_converse": (CHAT, CONVERSE),
    "messages_to_converse": (MESSAGES, CONVERSE),
    "responses_to_converse": (RESPONSES, CONVERSE),
}


def check_request(method: str, body: dict[str, Any]) -> None:
    """Raise an exception unless the body is a valid request of this API."""
    if method == GENERATE:
        own_api_types.check_gemini_request(body)
    elif method == CONVERSE:
        own_api_types.check_converse("Converse", body)
    else:
        model_sdks.check_request(method, body)


def check_response(method: str, body: dict[str, Any]) -> None:
    """Raise an exception unless the body is a valid response of this API."""
    if method == GENERATE:
        own_api_types.check_gemini_response(body)
    elif method == CONVERSE:
        own_api_types.check_converse("Converse", body, output=True)
    else:
        model_sdks.check_response(method, body)


def fed(stream: StreamTranslation, event: Any) -> bytes:
    """Return the translation of one event. The member `:event` is the name of an event of AWS."""
    name = ""
    if isinstance(event, dict):
        name = str(event.get(":event", ""))
        event = {key: value for key, value in event.items() if key != ":event"}
    return stream.feed(name, event.encode() if event == "[DONE]" else json.dumps(event).encode())


def translation(pair: str) -> Translation:
    """Return a new translation of this pair."""
    client, provider = PAIRS[pair]
    found = translation_for(client, {provider}, MAX_OUTPUT)
    assert found is not None
    assert found.provider_method == provider
    return found
