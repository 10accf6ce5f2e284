"""The member that limits the output of a chat request: sampling and executor use the same one."""

import pytest

from toolbus_common.config import Provider
from toolbus_common.contracts.model_calls import CHAT
from toolbus_common.model_api.output_limit import chat_limit_field
from toolbus_executor.providers.endpoints.methods import served_methods
from toolbus_executor.providers.request_body import limit_field


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"key": "k"}, "max_completion_tokens"),
        ({"url": "https://a.example/v1"}, "max_tokens"),
        ({"url": "https://a.example/v1", "apis": ["chat", "responses"]}, "max_completion_tokens"),
        ({"key": "k", "apis": ["chat"]}, "max_tokens"),
    ],
)
def test_the_member_follows_from_the_apis_that_the_provider_serves(
    fields: dict[str, object], expected: str
) -> None:
    provider = Provider.model_validate({"kind": "openai", **fields})
    assert chat_limit_field(serves_responses="responses" in provider.served_apis) == expected
    assert limit_field(CHAT, served_methods(provider, "m")) == expected
