"""Configured OAuth of servers: combinations that are rejected."""

import json
from typing import Any

import msgspec
import pytest

from toolbus_common.config import Server
from toolbus_common.config_store.loading.loader import load

ID, REF = {"id": "x"}, "${env:SECRET}"


@pytest.mark.parametrize(
    "fields",
    [
        {"oauth": {}, "command": ["x"], "url": ""},
        {"oauth": {}, "headers": {"authorization": "Bearer x"}},
        {"oauth": {"tokens": "user"}, "tools": {"t": {"cache": {"ttl": 5, "scope": "public"}}}},
        {"oauth": {"tokens": "user", "grant": "client_credentials"}},
        {"oauth": {"listing": "ann"}},
        {"oauth": {"grant": "workload"}},
        {"oauth": {"grant": "workload", "clients": {"https://far.test": {"id": "x"}}}},
        {"oauth": {"grant": "enterprise", "tokens": "user", "clients": {"https://a.test": ID}}},
        {"oauth": {"grant": "enterprise", "provider": "corp", "clients": {"https://a.test": ID}}},
        {"oauth": {"grant": "enterprise", "provider": "corp", "tokens": "user"}},
        {"oauth": {"provider": "corp"}},
        {"oauth": {"clients": {"https://far.test": {**ID, "assertion": "in the open"}}}},
        {"oauth": {"clients": {"https://far.test": {**ID, "key": REF, "assertion": REF}}}},
        {"oauth": {"clients": {"https://far.test": {"id": "x", "secret": "in the open"}}}},
    ],
)
def test_contradicting_oauth_settings_are_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"oauth|owner|user|reference|assertion|provider"):
        Server.model_validate_json(msgspec.json.encode({"url": "https://docs.test/mcp", **fields}))


def test_the_identity_provider_must_be_configured() -> None:
    clients = {"https://far.test": ID}
    oauth = {"grant": "enterprise", "tokens": "user", "provider": "corp", "clients": clients}
    servers = {"docs": {"url": "https://docs.test/mcp", "oauth": oauth}}
    (problem,) = load(json.dumps({"servers": servers}), {}).problems
    assert "no issuer 'corp' is configured" in problem.message
    issuers = {"corp": {"url": "https://corp.test", "client_id": "c"}}
    assert load(json.dumps({"servers": servers, "issuers": issuers}), {}).problems == ()
