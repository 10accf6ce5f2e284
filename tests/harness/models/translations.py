"""Translations under test: the API of the client and the API of the provider, by name."""

from harness.clients.model_sdks import CHAT, MESSAGES, RESPONSES
from toolbus_executor.providers.translation.base import Translation
from toolbus_executor.providers.translation.select import translation_for

MAX_OUTPUT = 4096  # of a request without a limit
PAIRS = {
    "messages_to_chat": (MESSAGES, CHAT),
    "chat_to_messages": (CHAT, MESSAGES),
    "responses_to_chat": (RESPONSES, CHAT),
    "responses_to_messages": (RESPONSES, MESSAGES),
}


def translation(pair: str) -> Translation:
    """Return a new translation of this pair."""
    client, provider = PAIRS[pair]
    found = translation_for(client, {provider}, MAX_OUTPUT)
    assert found is not None
    assert found.provider_method == provider
    return found
