"""Regions and labels of providers that levels and targets require, as policy enforces them."""

from time import time
from typing import Any

import pytest

from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts.model_calls import CHAT, ModelCall
from toolbus_common.errors import RuleDeniedError, UnknownModelError
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.admission.decision import evaluate_rules
from toolbus_policy.admission.rule_evaluator import RuleCompiler
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.models.requests import sized

KEY_DIGEST = key_digest_of("tbk_bot_0123456789abcdef")
FAST = ModelCall(alias="team-fast")
SECTIONS: dict[str, Any] = {
    "providers": {"local": {"kind": "openai", "url": "http://127.0.0.1:8081/v1", "unpriced": True}},
    "models": {"team-fast": [{"provider": "local", "model": "gemma"}]},
}
EUROPE: dict[str, Any] = {
    **SECTIONS["providers"]["local"],
    "region": "eu",
    "labels": ["own", "gpu"],
}


def authorizer(key: dict[str, Any], **sections: Any) -> Authorizer:
    declared = {
        **SECTIONS,
        "servers": {"docs": {"url": "http://127.0.0.1:1/mcp"}},
        "keys": {"bot": {"secret_hash": hash_of(KEY_DIGEST), **key}},
        **sections,
    }
    snapshot = ConfigSnapshot.of(Configuration.model_validate(declared))
    return Authorizer(snapshot, {}, RuleCompiler().of(snapshot))


def admit(
    decides: Authorizer,
    requested: ModelCall = FAST,
) -> Admission:
    """Return the admission of a request like the handler of calls."""
    fields = {"server": "local", "tool": "gemma", "method": CHAT, "extra": requested.encode()}
    call = requested_call(key_digest=KEY_DIGEST, **fields)
    admission = decides.authorize(
        call.key_digest, call.server, call.method, call.tool, time(), call.restriction
    )
    assert admission.terms is not None
    admission = sized(admission, admission.terms, call)
    evaluate_rules(decides, call, admission)
    return admission


@pytest.mark.parametrize(
    ("customer", "key", "permitted"),
    [
        ({"model_regions": ["eu"]}, {}, True),
        ({"model_regions": ["us", "eu"]}, {"model_labels": ["own"]}, True),
        ({"model_regions": ["us"]}, {}, False),
        ({"model_regions": ["eu"]}, {"model_regions": ["us"]}, False),
        ({"model_regions": []}, {}, False),
        ({"model_labels": ["own", "cloud"]}, {}, False),
        ({}, {"model_labels": ["gpu", "own"]}, True),
    ],
)
def test_every_level_limits_the_regions_and_labels_of_providers(
    customer: dict[str, Any], key: dict[str, Any], *, permitted: bool
) -> None:
    decides = authorizer(
        {"models": ["*"], "team": "a", **key},
        customers={"acme": customer},
        teams={"a": {"customer": "acme"}},
        providers={**SECTIONS["providers"], "local": EUROPE},
    )
    if permitted:
        size = admit(decides).size
        assert size is not None
        assert (size.region, size.labels) == ("eu", ("own", "gpu"))
        return
    with pytest.raises(UnknownModelError):
        admit(decides)
    with pytest.raises(UnknownModelError):
        admit(decides, ModelCall())


def test_a_provider_without_a_region_is_denied_where_a_region_is_required() -> None:
    with pytest.raises(UnknownModelError, match="Unknown model: 'team-fast'"):
        admit(authorizer({"models": ["*"], "model_regions": ["eu"]}))


@pytest.mark.parametrize(
    "requirement", [{"region": "us"}, {"labels": ["cloud"]}, {"region": "eu", "labels": ["cloud"]}]
)
def test_an_alias_does_not_contain_a_target_whose_provider_lacks_its_requirements(
    requirement: dict[str, Any],
) -> None:
    def decides(**requirement: Any) -> Authorizer:
        target = {"provider": "local", "model": "gemma", **requirement}
        providers = {**SECTIONS["providers"], "local": EUROPE}
        return authorizer(
            {"models": ["team-fast"]}, providers=providers, models={"team-fast": [target]}
        )

    assert admit(decides(region="eu", labels=["gpu"])).size is not None
    with pytest.raises(UnknownModelError):
        admit(decides(**requirement))


def test_rules_see_the_region_and_the_labels_of_the_provider() -> None:
    def decides(rule: str) -> Authorizer:
        providers = {**SECTIONS["providers"], "local": EUROPE}
        when = f"context has model && {rule}"
        rules = {"no": {"cedar": f"forbid(principal, action, resource) when {{ {when} }};"}}
        return authorizer({"models": ["*"]}, providers=providers, rules=rules)

    for denied in ('context.model.region == "eu"', 'context.model.labels.contains("own")'):
        with pytest.raises(RuleDeniedError):
            admit(decides(denied))
    assert admit(decides('context.model.region != "eu"')).size is not None
