"""Responses that may be stored."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.services.call_runner import admitted
from toolbus_common.config import Provider, ResponseCache
from toolbus_common.contracts.model_calls import CHAT, EMBEDDINGS, Usage
from toolbus_executor.providers.cache.provider_cache import ProviderCache, _Lookup
from toolbus_executor.providers.cache.request_key import RequestKey
from toolbus_executor.providers.usage import Response


def is_stored(reason: str, body: bytes = b"{}", method: str = CHAT) -> bool:
    """Return whether a response with this finish reason is stored."""
    stored: list[Any] = []
    store = SimpleNamespace(start=lambda: None, write=lambda *given: stored.append(given))
    provider = Provider(kind="openai", url="http://p/v1")
    cache = ProviderCache("p", provider, ResponseCache(), cast("Any", store), cast("Any", None))
    exchange = SimpleNamespace(
        call=admitted("m", server="p", method=method),
        copied=lambda body: Response(body, streamed=False, usage=Usage(), finish_reason=reason),
    )
    lookup = _Lookup("e.acme.a", RequestKey(b""), cast("Any", None), 0)
    cache._write(cast("Any", exchange), lookup, body)
    return bool(stored)


@pytest.mark.parametrize("reason", ["stop", "completed", "end_turn", "stop_sequence", "STOP"])
def test_a_complete_response_of_every_api_is_stored(reason: str) -> None:
    assert is_stored(reason)


@pytest.mark.parametrize(
    "reason", ["", "length", "max_tokens", "MAX_TOKENS", "SAFETY", "guardrail_intervened"]
)
def test_an_incomplete_or_refused_response_is_not_stored(reason: str) -> None:
    assert not is_stored(reason)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"data":[{"embedding":[1]}]}', True),
        (b'{"data":[{"embedding":[1]}],"error":null}', True),
        (b'{"data":[{"embedding":[1]}],"error":{"message":"no"}}', False),
        (b'{"error":{"message":"no"}}', False),
        (b'{"data":[]}', False),
        (b'{"data":"x"}', False),
        (b"[]", False),
        (b"", False),
    ],
)
def test_embeddings_without_data_or_with_an_error_are_not_stored(
    body: bytes, *, expected: bool
) -> None:
    assert is_stored("", body, EMBEDDINGS) is expected
