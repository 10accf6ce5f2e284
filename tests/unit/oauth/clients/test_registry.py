"""What anybody may try at the authorization server costs others nothing."""

from typing import Any

import pytest

from toolbus_oauth.clients.registry import parse_metadata
from toolbus_oauth.web.errors import OAuthError


def test_a_client_that_brings_much_is_not_kept() -> None:
    key = {"kty": "EC", "crv": "P-256", "x": "a" * 43, "y": "b" * 43, "note": "z" * 60_000}
    fields: dict[str, Any] = {"redirect_uris": ["https://a.test/back"], "jwks": {"keys": [key]}}
    with pytest.raises(OAuthError, match="bytes"):
        parse_metadata(fields, "id")
