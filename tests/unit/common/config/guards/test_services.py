"""Settings of guards that ask a service: what is wrong, addresses, secrets and destinations."""

from typing import Any

import pytest
from pydantic import ValidationError

from toolbus_common.config import Configuration, Guard
from toolbus_common.config_store.operator_targets import digest_of, digests_of
from toolbus_common.config_store.redacted_view import exported, restored
from toolbus_common.errors import InvalidConfigurationError
from toolbus_policy.admin.remote_restrictions import RemoteRestrictions

URL = "https://guard.example.com/check"
AZURE = "https://name.cognitiveservices.azure.com"
PAIR = {"access_key": "${env:A}", "secret_key": "${env:B}"}
BEDROCK = {"guardrail": "abc123", "region": "eu-central-1"}
ARMOR = {"project": "p-1", "location": "us-central1", "template": "t"}


def guard(kind: str = "http", **fields: Any) -> Guard:
    """Return a guard of results."""
    return Guard.model_validate({"kind": kind, "on": ["results"], **fields})


@pytest.mark.parametrize(
    ("kind", "fields", "url"),
    [
        ("http", {"url": URL}, URL),
        ("mcp", {"server": "guardian", "tool": "check"}, ""),
        ("bedrock", {"credentials": PAIR, "options": BEDROCK},
         "https://bedrock-runtime.eu-central-1.amazonaws.com"),
        ("bedrock", {"key": "k", "options": BEDROCK},
         "https://bedrock-runtime.eu-central-1.amazonaws.com"),
        ("azure_content_safety", {"url": AZURE, "key": "k"}, AZURE),
        ("azure_prompt_shields", {"url": AZURE, "key": "k"}, AZURE),
        ("patronus", {"key": "k", "options": {"evaluators": [{"evaluator": "judge"}]}},
         "https://api.patronus.ai"),
        ("gray_swan", {"key": "k"}, "https://api.grayswan.ai"),
        ("lakera", {"key": "k"}, "https://api.lakera.ai"),
        ("model_armor", {"key": "k", "options": ARMOR},
         "https://modelarmor.us-central1.rep.googleapis.com"),
    ],
)  # fmt: skip
def test_a_few_fields_suffice_for_each_kind(kind: str, fields: dict[str, Any], url: str) -> None:
    assert guard(kind, **fields).service_url == url


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        ("http", {}, "needs the 'url' of the service"),
        ("http", {"url": "ftp://x"}, "must begin with http:// or https://"),
        ("http", {"url": URL, "options": {"from": "litellm"}}, "options.from: Extra inputs"),
        ("http", {"url": URL, "options": {"form": "openai", "send": "both"}},
         "'send' applies only to the form 'toolbus'"),
        ("http", {"url": URL, "restore": ["mail__*"], "action": "redact"},
         "'restore' applies only to the built-in kinds"),
        ("mcp", {"server": "guardian", "tool": "check", "key": "k"}, "'key' do not apply"),
        ("bedrock", {"options": BEDROCK}, "needs 'key'"),
        ("bedrock", {"options": BEDROCK, "credentials": {"access_key": "a"}},
         "'credentials' needs secret_key too"),
        ("bedrock", {"options": {**BEDROCK, "ambient": True}, "key": "k"},
         "has 'ambient' and 'credentials'"),
        ("bedrock", {"options": {**BEDROCK, "guardrail": "../x"}, "key": "k"},
         "options.guardrail: String should match"),
        ("azure_prompt_shields", {"key": "k"}, "needs the 'url' of the resource"),
        ("azure_content_safety", {"url": AZURE}, "needs the key of the service"),
        ("azure_content_safety", {"url": AZURE, "key": "k", "options": {"severity": {"Hate": 9}}},
         "'severity' of Hate must be from 1 to 7"),
        ("patronus", {"key": "k"}, "options.evaluators: Field required"),
        ("gray_swan", {"key": "k", "options": {"threshold": 2}}, "options.threshold"),
        ("lakera", {}, "needs the key of the service"),
        ("lakera", {"credentials": {"k": "v"}}, "'credentials' has the unknown name 'k'"),
        ("model_armor", {"options": ARMOR}, "needs the key of a service account"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_when_the_configuration_is_read(
    kind: str, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem.replace("(", r"\(")):
        guard(kind, **fields)


def test_keys_are_hidden_and_never_sent_to_another_address() -> None:
    old = Configuration(guards={"g": guard(url=URL, key="secret-1", headers={"x-team": "t"})})
    view = exported(old)
    assert "secret-1" not in str(view)
    unchanged = Configuration.model_validate(view)
    assert restored(unchanged, old) == old
    view["guards"]["g"]["url"] = "https://attacker.example.com"
    with pytest.raises(InvalidConfigurationError, match="none is stored for this address"):
        restored(Configuration.model_validate(view), old)


def test_the_operator_confirms_the_address_of_a_service_and_the_machines_credentials() -> None:
    ambient = guard("bedrock", options={**BEDROCK, "ambient": True})
    one = Configuration(guards={"g": guard(url=URL), "aws": ambient})
    assert len(set(digests_of(one))) == 3
    assert digest_of(ambient) in set(digests_of(one))
    other = guard("bedrock", options={**BEDROCK, "region": "us-east-1", "ambient": True})
    assert digest_of(other) not in set(digests_of(one))


def test_over_http_a_guard_cannot_send_secrets_or_content_to_an_internal_address() -> None:
    old = Configuration()
    new = Configuration(
        guards={
            "inner": guard(url="http://169.254.169.254/latest"),
            "leak": guard(url=URL, key="${env:NATS_SEED}"),
            "aws": guard("bedrock", options={**BEDROCK, "ambient": True}),
        }
    )
    found = {each["location"] for each in RemoteRestrictions().violations(old, new)}
    assert found == {
        "guards.inner.url",
        "guards.leak.credentials.key",
        "guards.aws.options.ambient",
    }
    assert not RemoteRestrictions().violations(new, new)
