"""What anybody may try at the authorization server costs others nothing."""

from typing import Any

import pytest

from toolbus_common.access.token_cache import TokenCache
from toolbus_common.contracts import Bearer
from toolbus_common.nats.kv_bucket import Change
from toolbus_oauth.clients.registry import parse_metadata
from toolbus_oauth.web.errors import OAuthError


def test_a_client_that_brings_much_is_not_kept() -> None:
    key = {"kty": "EC", "crv": "P-256", "x": "a" * 43, "y": "b" * 43, "note": "z" * 60_000}
    fields: dict[str, Any] = {"redirect_uris": ["https://a.test/back"], "jwks": {"keys": [key]}}
    with pytest.raises(OAuthError, match="bytes"):
        parse_metadata(fields, "id")


def test_who_holds_no_token_any_more_is_known_by_no_name() -> None:
    bearers = TokenCache()
    for name in ("one", "two"):
        bearers.apply_change(Change(name, _bearer().encode(), 1))
    held = _bearer().name
    bearers.apply_change(Change("one", None, 2))
    assert bearers.user_of(held) == "ann"
    bearers.apply_change(Change("two", None, 3))
    with pytest.raises(KeyError):
        bearers.user_of(held)


def _bearer() -> Bearer:
    return Bearer(
        access="staff", user="ann", client="c", resource="https://a.test/mcp", ends=9e9, handle="h"
    )
