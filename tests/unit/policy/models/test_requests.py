"""Model requests: grants by alias or name, prices, and the amount reserved for a request."""

from math import ceil
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.builders.access_tokens import bearer
from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of, key_digest_of
from toolbus_common.access.token_cache import TokenCache
from toolbus_common.config import Configuration
from toolbus_common.contracts import TOOLS_CALL
from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MODEL_METHODS,
    ModelCall,
)
from toolbus_common.errors import (
    InsufficientScopeError,
    InvalidError,
    RuleDeniedError,
    UnknownModelError,
    UnknownToolError,
)
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.admission.decision import evaluate_rules
from toolbus_policy.admission.rule_evaluator import RuleCompiler
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.models.requests import MAX_OUTPUT, sized

KEY_DIGEST = key_digest_of("tbk_bot_0123456789abcdef")
FAST = ModelCall(alias="team-fast")
SECTIONS: dict[str, Any] = {
    "providers": {
        "local": {"kind": "openai", "url": "http://127.0.0.1:8081/v1", "max_output": 1000},
        "claude": {"kind": "anthropic", "key": "x"},
        "free": {"kind": "openai", "url": "http://127.0.0.1:8082/v1", "unpriced": True},
    },
    "models": {
        "team-fast": [
            {"provider": "local", "model": "gemma", "weight": 3},
            {"provider": "claude", "model": "haiku"},
        ],
        "other": [{"provider": "claude", "model": "haiku"}],
    },
    "model_prices": {
        "local/gemma": {"input": 2.0, "output": 10.0, "cached_input": 0.5, "cache_write": 3.0},
        "claude/haiku": {"input": 1.0, "output": 5.0, "reasoning": 7.0, "request": 0.01},
    },
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
    provider: str = "local",
    model: str = "gemma",
    **given: Any,
) -> Admission:
    """Return the admission of a request like the handler of calls."""
    fields = {"server": provider, "tool": model, "method": CHAT, "extra": requested.encode()}
    call = requested_call(key_digest=KEY_DIGEST, **{**fields, **given})
    admission = decides.authorize(
        call.key_digest, call.server, call.method, call.tool, time(), call.restriction
    )
    assert admission.terms is not None
    admission = sized(admission, admission.terms, call)
    evaluate_rules(decides, call, admission)
    return admission


# -- grants ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(MODEL_METHODS))
def test_a_granted_alias_is_admitted_for_every_method(method: str) -> None:
    admission = admit(authorizer({"models": ["team-*"]}), method=method)
    assert admission.payer.key == "bot"
    assert admission.loops == ()


@pytest.mark.parametrize(
    ("models", "requested", "provider", "model"),
    [
        (["local/gemma"], ModelCall(), "local", "gemma"),
        (["local/*"], ModelCall(), "local", "gemma"),
        (["*"], ModelCall(), "claude", "haiku"),
        (["*"], FAST, "claude", "haiku"),
    ],
)
def test_a_granted_name_is_admitted(
    models: list[str], requested: ModelCall, provider: str, model: str
) -> None:
    assert admit(authorizer({"models": models}), requested, provider, model).size is not None


@pytest.mark.parametrize(
    ("key", "requested", "provider", "model"),
    [
        ({"tools": ["*"]}, FAST, "local", "gemma"),
        ({"models": ["other"]}, FAST, "local", "gemma"),
        ({"models": ["local/*"]}, FAST, "local", "gemma"),
        ({"models": ["team-fast"]}, ModelCall(), "local", "gemma"),
        ({"models": ["*"]}, FAST, "local", "other-model"),
        ({"models": ["*"]}, ModelCall(alias="other"), "local", "gemma"),
        ({"models": ["*"]}, ModelCall(alias="local/gemma"), "claude", "haiku"),
        ({"models": ["*"]}, ModelCall(alias="missing"), "local", "gemma"),
        ({"models": ["*"]}, ModelCall(), "missing", "gemma"),
        ({"models": ["*"]}, ModelCall(), "docs", "search"),
    ],
    ids=[
        "no models", "another alias", "only the name", "only the alias", "not in the alias",
        "in another alias", "a name as alias", "unknown alias", "unknown provider", "a server",
    ],
)  # fmt: skip
def test_a_model_without_a_grant_is_unknown(
    key: dict[str, Any], requested: ModelCall, provider: str, model: str
) -> None:
    with pytest.raises(UnknownModelError, match="Unknown model"):
        admit(authorizer(key), requested, provider, model)


@pytest.mark.parametrize("section", ["customers", "teams", "users"])
def test_every_level_that_sets_models_must_grant_the_name(section: str) -> None:
    levels: dict[str, dict[str, dict[str, Any]]] = {
        "customers": {"acme": {}},
        "teams": {"ops": {"customer": "acme"}},
        "users": {"ann": {"customer": "acme"}},
    }
    key = {"models": ["*"], "team": "ops", "user": "ann"}
    assert admit(authorizer(key, **levels)).terms
    (limited,) = levels[section].values()
    limited["models"] = ["other"]
    with pytest.raises(UnknownModelError):
        admit(authorizer(key, **levels))
    limited["groups"] = ["fast"]
    assert admit(authorizer(key, **levels, groups={"fast": {"models": ["team-fast"]}})).terms


def test_a_group_without_models_and_an_unknown_group_grant_none() -> None:
    groups = {"tools-only": {"tools": ["*"]}}
    for name in ("tools-only", "missing"):
        with pytest.raises(UnknownModelError):
            admit(authorizer({"groups": [name]}, groups=groups))


def test_a_restriction_of_the_request_applies_to_the_requested_name() -> None:
    decides = authorizer({"models": ["*"]})
    assert admit(decides, restriction=(("team-*",), ("*",))).terms
    for restriction in ((("docs__*",),), (("local/*",),), ((),)):
        with pytest.raises(UnknownModelError, match="team-fast"):
            admit(decides, restriction=restriction)


def test_a_provider_is_no_server_and_a_server_is_no_provider() -> None:
    decides = authorizer({"models": ["*"], "tools": ["*"]})
    with pytest.raises(UnknownToolError):
        decides.authorize(KEY_DIGEST, "local", TOOLS_CALL, "gemma", time())
    with pytest.raises(UnknownModelError):
        decides.authorize(KEY_DIGEST, "docs", CHAT, "search", time())


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("tools", None), ("tools:chat", None), ("tools:plain", InsufficientScopeError)],
)
def test_a_token_limited_to_groups_may_use_only_their_models(
    scope: str, expected: type[Exception] | None
) -> None:
    declared = Configuration.model_validate(
        {
            **SECTIONS,
            "groups": {
                "chat": {"tools": [], "models": ["team-fast"], "scope": "first"},
                "plain": {"tools": ["*"], "scope": "first"},
            },
            "issuers": {"sso": {"url": "https://sso.example", "audience": "x"}},
            "access": {"staff": {"issuer": "sso", "tools": ["*"], "models": ["team-fast"]}},
        }
    )
    tokens = TokenCache()
    tokens.take(hash_of(KEY_DIGEST), bearer(scope=scope))
    decides = Authorizer(ConfigSnapshot.of(declared, bearers=tokens), {})
    if expected is None:
        assert admit(decides).terms
        return
    with pytest.raises(expected) as caught:
        admit(decides)
    assert caught.value.data["scope"] == "tools:plain tools:chat"  # type: ignore[attr-defined]
    with pytest.raises(UnknownModelError):
        admit(decides, ModelCall(alias="other"), "claude", "haiku")


# -- prices and sizes -----------------------------------------------------------------------------


def test_a_model_without_a_price_is_refused_with_the_fix() -> None:
    decides = authorizer({"models": ["*"]}, model_prices={})
    with pytest.raises(
        UnknownModelError, match=r"'local/gemma' has no price.*model_prices.*unpriced"
    ):
        admit(decides)


def test_a_model_of_an_unpriced_provider_is_free() -> None:
    budgets = [{"usd": 1, "per": "day"}, {"calls": 5, "per": "day"}]
    decides = authorizer({"models": ["*"], "budgets": budgets})
    admission = admit(decides, ModelCall(), "free", "any")
    assert (admission.charge, admission.cost.parts) == (0, ())
    assert [limit.in_money for limit in admission.budgets] == [False]


@given(
    size=st.integers(0, 10_000),
    output=st.none() | st.integers(0, 100_000),
    choices=st.integers(1, 20),
)
def test_the_reservation_assumes_the_most_expensive_input_and_output(
    size: int, output: int | None, choices: int
) -> None:
    decides = authorizer({"models": ["*"], "budget": {"usd": 1, "per": "day"}})
    requested = ModelCall(alias="team-fast", output=output, choices=choices)
    admission = admit(decides, requested, arguments=b"x" * size)
    most = output or 1000 * choices
    assert admission.charge == ceil(size / 3) * 3 + most * 10
    assert admission.cost.parts == (2, 0.5, 3, 10, 10, 0)
    assert admission.size is not None
    assert admission.size.tokens == ceil(size / 3) + most
    assert bool(admission.budgets) == bool(admission.charge)


def test_a_price_per_request_and_the_reasoning_price_are_reserved() -> None:
    decides = authorizer({"models": ["*"]})
    requested = ModelCall(alias="team-fast", output=100)
    admission = admit(decides, requested, "claude", "haiku", arguments=b"x" * 30)
    assert admission.charge == 10 * 1 + 100 * 7 + 10_000


@pytest.mark.parametrize(
    ("ttl", "dearest", "parts"),
    [
        (rb'"5m"', 3, (2, 0.5, 3, 10, 10, 0)),
        (rb'"1h"', 4, (2, 0.5, 3, 10, 10, 0, 4)),
        (rb'"\u0031\u0068"', 4, (2, 0.5, 3, 10, 10, 0, 4)),
        (rb'"1\u0068"', 4, (2, 0.5, 3, 10, 10, 0, 4)),
    ],
)
def test_a_cache_of_one_hour_is_reserved_at_its_price(
    ttl: bytes, dearest: int, parts: tuple[float, ...]
) -> None:
    price = {**SECTIONS["model_prices"]["local/gemma"], "cache_write_1h": 4.0}
    decides = authorizer({"models": ["*"]}, model_prices={"local/gemma": price})
    body = b'{"cache_control":{"type":"ephemeral","ttl":%b}}' % ttl
    requested = ModelCall(alias="team-fast", output=100)
    admission = admit(decides, requested, arguments=body)
    assert admission.charge == ceil(len(body) / 3) * dearest + 1000
    assert admission.cost.parts == parts


def test_audio_and_images_are_reserved_at_their_price() -> None:
    own = {"cache_write_1h": 40.0, "audio_input": 30.0, "audio_output": 60.0}
    price = {**SECTIONS["model_prices"]["local/gemma"], **own}
    decides = authorizer({"models": ["*"]}, model_prices={"local/gemma": price})
    media = b"audio", rb"\u0061udio", b'"input_file"', b'"document"', b'"previous_response_id"'
    texts = {b"text": (3, 10), rb'"a \"prompt\""': (3, 10), b'"1h"': (40, 10)}
    for body, (dearest, made) in (texts | dict.fromkeys(media, (30, 60))).items():
        admission = admit(decides, ModelCall(alias="team-fast", output=100), arguments=body)
        assert admission.charge == ceil(len(body) / 3) * dearest + 100 * made


def test_embeddings_have_no_output_and_counting_tokens_is_free() -> None:
    decides = authorizer({"models": ["*"], "budget": {"usd": 1, "per": "day"}})
    embedded = admit(decides, method=EMBEDDINGS, arguments=b"x" * 30)
    assert (embedded.charge, bool(embedded.budgets)) == (30, True)
    counted = admit(decides, method=COUNT_TOKENS, arguments=b"x" * 30)
    assert (counted.charge, counted.cost.parts, counted.budgets) == (0, (), ())


def test_a_cached_admission_is_sized_for_each_request() -> None:
    decides = authorizer({"models": ["*"]})
    charges = [
        admit(decides, ModelCall(alias="team-fast", output=output), arguments=b"").charge
        for output in (1, 2, 1)
    ]
    assert charges == [10, 20, 10]


@pytest.mark.parametrize(
    "extra",
    [
        "", "{}}", "[]", '{"output":"many"}', '{"output":1.5}', '{"output":-1}', '{"choices":0}',
        '{"tools":-1}', f'{{"output":{MAX_OUTPUT + 1}}}', '{"output":1e400}',
        '{"output":99999999999999999999}', f'{{"choices":{MAX_OUTPUT}}}',
    ],
)  # fmt: skip
def test_an_invalid_size_is_refused(extra: str) -> None:
    with pytest.raises(InvalidError):
        admit(authorizer({"models": ["*"]}), ModelCall(), extra=extra)


def test_an_idempotency_key_is_refused() -> None:
    with pytest.raises(InvalidError, match="idempotency"):
        admit(authorizer({"models": ["*"]}), idempotency_key="once")


# -- budgets, rates, rules ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "counted"),
    [
        ({}, True),
        ({"tools": ["*"]}, False),
        ({"models": ["team-fast"]}, True),
        ({"models": ["local/*"]}, True),
        ({"models": ["other"]}, False),
        ({"tools": ["docs__*"], "models": ["team-*"]}, True),
    ],
)
@pytest.mark.parametrize("requested", [FAST, ModelCall()], ids=["alias", "name"])
def test_a_budget_counts_its_models_by_every_name(
    budget: dict[str, Any],
    counted: bool,  # noqa: FBT001
    requested: ModelCall,
) -> None:
    decides = authorizer({"models": ["*"], "budget": {"usd": 1, "per": "day", **budget}})
    assert bool(admit(decides, requested).budgets) == counted


def test_only_model_requests_count_against_a_rate_of_tokens() -> None:
    rates = [{"calls": 5, "per": "minute"}, {"tokens": 5000, "per": "minute"}]
    decides = authorizer({"models": ["*"], "rates": rates})
    admission = admit(decides)
    assert [limit.counter for limit in admission.rates] == [
        "rate:key:bot:minute",
        "rate:key:bot:tokens:minute",
    ]
    assert [limit.in_tokens for limit in admission.payer.rates] == [False]


def ruled(cedar: str, requested: ModelCall = FAST, effect: str = "deny", **given: Any) -> str:
    """Return the rule that denies a request; empty if none does."""
    rules = {"the-rule": {"cedar": cedar, "effect": effect}}
    try:
        admit(authorizer({"models": ["*"]}, rules=rules), requested, **given)
    except RuleDeniedError as error:
        return str(error.data["rule"])
    return ""


def test_a_rule_reads_the_size_of_a_model_request() -> None:
    text = (
        'forbid(principal, action == Action::"models/chat", resource in Server::"local") when {'
        " context.model.output > 500 && context.model.input < 100 && context.model.tools == 2"
        ' && context.model.stream && context.model.alias == "team-fast" };'
    )
    big = ModelCall(alias="team-fast", output=501, tools=2, stream=True)
    assert ruled(text, big) == "the-rule"
    assert ruled(text, ModelCall(alias="team-fast", output=500, tools=2, stream=True)) == ""
    assert ruled(text, big, method=EMBEDDINGS) == ""


@pytest.mark.parametrize("reads", ["context.cost", "resource.price"])
def test_a_rule_reads_the_cost_of_each_request(reads: str) -> None:
    text = f"forbid(principal, action, resource) when {{ {reads} > 5000 }};"
    rules = {"dear": {"cedar": text}}
    decides = authorizer({"models": ["*"]}, rules=rules)
    admit(decides, ModelCall(alias="team-fast", output=1))
    with pytest.raises(RuleDeniedError):
        admit(decides, ModelCall(alias="team-fast", output=1000))
    admit(decides, ModelCall(alias="team-fast", output=1))


def test_a_rule_sees_no_arguments_of_a_model_request() -> None:
    text = "forbid(principal, action, resource) when { context.arguments has model };"
    assert ruled(text, arguments=b'{"model":"gemma"}') == ""
    text = "forbid(principal, action, resource) unless { context.arguments has model };"
    assert ruled(text, arguments=b'{"model":"gemma"}') == "the-rule"


def test_a_rule_that_requires_approval_denies_a_model_request() -> None:
    text = "forbid(principal, action, resource);"
    assert ruled(text, effect="approve") == "the-rule"
