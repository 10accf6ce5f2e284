"""Registration of clients: limits."""

from typing import Any

import pytest

from toolbus_oauth.clients.registry import parse_metadata
from toolbus_oauth.web.errors import OAuthError


def test_oversized_client_metadata_is_rejected() -> None:
    key = {"kty": "EC", "crv": "P-256", "x": "a" * 43, "y": "b" * 43, "note": "z" * 60_000}
    fields: dict[str, Any] = {"redirect_uris": ["https://a.test/back"], "jwks": {"keys": [key]}}
    with pytest.raises(OAuthError, match="bytes"):
        parse_metadata(fields, "id")
