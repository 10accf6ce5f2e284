"""Requests to models that a server's sampling request caused: their model, approval and rules."""

from time import time
from typing import Any

import pytest

from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallRequested
from toolbus_common.contracts.model_calls import CHAT, ModelCall
from toolbus_common.errors import InvalidError, RuleDeniedError
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.admission.decision import evaluate_rules
from toolbus_policy.admission.rule_evaluator import RuleCompiler
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.models.requests import sized

KEY_DIGEST = key_digest_of("tbk_bot_0123456789abcdef")
FAST = ModelCall(alias="team-fast")


def authorizer(rules: dict[str, Any] | None = None, **sampling: Any) -> Authorizer:
    """Return an authorizer whose server `docs` samples the alias `team-fast`."""
    declared = {
        "providers": {
            "local": {"kind": "openai", "url": "http://127.0.0.1:1/v1", "unpriced": True}
        },
        "models": {
            "team-fast": [{"provider": "local", "model": "gemma"}],
            "other": [{"provider": "local", "model": "gemma"}],
        },
        "servers": {
            "docs": {
                "url": "http://127.0.0.1:1/mcp",
                "sampling": {"model": "team-fast", **sampling},
            }
        },
        "keys": {"bot": {"secret_hash": hash_of(KEY_DIGEST), "models": ["*"]}},
        "rules": rules or {},
    }
    snapshot = ConfigSnapshot.of(Configuration.model_validate(declared))
    return Authorizer(snapshot, {}, RuleCompiler().of(snapshot))


def requested(model_call: ModelCall) -> CallRequested:
    """Return a request to the model as ingress sends it."""
    fields = {"server": "local", "tool": "gemma", "method": CHAT, "extra": model_call.encode()}
    return requested_call(key_digest=KEY_DIGEST, **fields)


def admit(decides: Authorizer, model_call: ModelCall) -> Admission:
    """Return the admission of a request."""
    call = requested(model_call)
    admission = decides.authorize(KEY_DIGEST, call.server, call.method, call.tool, time())
    assert admission.terms is not None
    return sized(admission, admission.terms, call)


SAMPLED = ModelCall(alias="team-fast", sampled_by="docs")


def test_a_sampling_request_needs_approval_where_its_server_is_configured_so() -> None:
    assert admit(authorizer(approve=True), SAMPLED).cause == "server:docs"
    assert admit(authorizer(), SAMPLED).cause == ""
    assert admit(authorizer(approve=True), FAST).cause == ""


@pytest.mark.parametrize(
    "wrong",
    [
        ModelCall(alias="team-fast", sampled_by="other"),
        ModelCall(alias="other", sampled_by="docs"),
    ],
)
def test_a_server_samples_only_its_declared_model(wrong: ModelCall) -> None:
    with pytest.raises(InvalidError, match="sampling"):
        admit(authorizer(), wrong)


def test_a_rule_can_require_approval_of_a_sampling_request_or_deny_it() -> None:
    text = (
        "forbid(principal, action, resource) "
        'when { context has model && context.model.sampled_by == "docs" };'
    )
    call = requested(SAMPLED)
    decides = authorizer({"watch": {"effect": "approve", "cedar": text}})
    assert evaluate_rules(decides, call, admit(decides, SAMPLED)).approve_by == "watch"
    decides = authorizer({"watch": {"effect": "deny", "cedar": text}})
    with pytest.raises(RuleDeniedError):
        evaluate_rules(decides, call, admit(decides, SAMPLED))
