"""Token responses of an authorization server: what is accepted, and for how long."""

from typing import Any

import pytest

from toolbus_oauth.oauth_client.identity import TokenRequestError
from toolbus_oauth.oauth_client.token_client import LONGEST_TOKEN, parse_token_response


@pytest.mark.parametrize(
    "fields",
    [
        {"access_token": "a\r\nX-Evil: 1", "token_type": "Bearer"},
        {"access_token": "a" * (LONGEST_TOKEN + 1), "token_type": "Bearer"},
        {"access_token": "a", "token_type": "mac"},
        {"access_token": 7, "token_type": "Bearer"},
        {},
    ],
)
def test_a_token_that_cannot_be_sent_in_a_header_is_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(TokenRequestError):
        parse_token_response(fields, 0.0)


@pytest.mark.parametrize(
    ("seconds", "ends"), [(60, 60.0), ("60", 60.0), (-1, 3600.0), ({}, 3600.0)]
)
def test_a_token_expires_as_stated_or_after_the_default(seconds: Any, ends: float) -> None:
    fields = {"access_token": "a", "token_type": "bearer", "expires_in": seconds}
    assert parse_token_response(fields, 0.0).ends == ends
