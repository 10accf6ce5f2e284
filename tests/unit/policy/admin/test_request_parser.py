"""Bodies of the administration API: JSON lists are accepted wherever the configuration has them."""

import json
from typing import Any

import pytest

from toolbus_common.config import Guard, Provider
from toolbus_policy.admin.request_parser import parse_body


@pytest.mark.parametrize(
    ("wanted", "body"),
    [
        (Provider, {"kind": "openai", "key": "k", "models": ["m"], "labels": ["x"]}),
        (Provider, {"kind": "openai", "apis": ["chat"], "guards": ["secrets"]}),
        (Guard, {"kind": "secrets", "on": ["results"], "fields": ["path"], "rules": ["jwt"]}),
        (
            Guard,
            {
                "kind": "azure_content_safety", "on": ["prompts"], "key": "k",
                "url": "https://x.example", "options": {"blocklists": ["b"]},
            },
        ),
    ],
)  # fmt: skip
def test_a_list_of_an_entry_is_accepted(wanted: Any, body: dict[str, Any]) -> None:
    parsed = parse_body(wanted, json.dumps(body).encode())
    written = parsed.model_dump(mode="json", exclude_unset=True)
    lists = {name: value for name, value in body.items() if isinstance(value, list)}
    assert {name: written[name] for name in lists} == lists
