"""Terms of the cache of responses: who shares a response, and what an embedding costs."""

from typing import Any

import pytest

from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts.model_calls import CHAT, CacheTerms, ModelCall, decode_cache_terms
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.admission.rule_evaluator import RuleCompiler
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.models.requests import sized

KEY_DIGEST = key_digest_of("tbk_bot_0123456789abcdef")
PRICES = {"p/*": {"input": 3.0, "output": 5.0}, "e/*": {"input": 2.0}}


def admission(cache: Any, key: Any = None, **sections: Any) -> Admission:
    """Return the admission of a request of 30 bytes with at most 2 output tokens."""
    declared: dict[str, Any] = {
        "providers": {
            "p": {"kind": "openai", "url": "http://p/v1", "cache": cache},
            "e": {"kind": "openai", "url": "http://e/v1"},
        },
        "model_prices": PRICES,
        "customers": {"acme": {}},
        "teams": {"support": {"customer": "acme"}},
        "users": {"ann": {"customer": "acme"}},
        "keys": {
            "bot": {
                "models": ["p/*", "e/*"], "team": "support", "user": "ann",
                "secret_hash": hash_of(KEY_DIGEST), **(key or {}),
            }
        },
        **sections,
    }  # fmt: skip
    snapshot = ConfigSnapshot.of(Configuration.model_validate(declared))
    authorizer = Authorizer(snapshot, {}, RuleCompiler().of(snapshot))
    call = requested_call(
        server="p", tool="m", method=CHAT, key_digest=KEY_DIGEST,
        extra=ModelCall(output=2).encode(), arguments=b"x" * 30,
    )  # fmt: skip
    found = authorizer.authorize(KEY_DIGEST, "p", CHAT, "m", 0.0, ())
    assert found.terms is not None
    return sized(found, found.terms, call)


def terms(cache: Any, key: Any = None, **sections: Any) -> CacheTerms | None:
    """Return the terms that executor receives; None if nothing is cached."""
    found = admission(cache, key, **sections).terms
    assert found is not None
    return decode_cache_terms(found.cache) if found.cache else None


def scope(cache: Any, key: Any = None, **sections: Any) -> str:
    """Return who shares a response; without the digest of a key."""
    found = terms(cache, key, **sections)
    return ":".join(found.scope.split(":")[:2]) if found is not None else ""


def test_without_a_cache_nothing_is_cached() -> None:
    assert terms(None) is None


@pytest.mark.parametrize(
    ("widest", "expected"),
    [
        ("customer", "customer:acme"),
        ("team", "team:support"),
        ("user", "user:ann"),
        ("key", "key:bot"),
    ],
)
def test_the_provider_sets_the_widest_scope(widest: str, expected: str) -> None:
    assert scope({"scope": widest}) == expected


def test_every_level_can_narrow_the_scope_and_none_can_widen_it() -> None:
    assert (
        scope({}, teams={"support": {"customer": "acme", "cache_scope": "team"}}) == "team:support"
    )
    assert scope({}, customers={"acme": {"cache_scope": "user"}}) == "user:ann"
    assert scope({"scope": "key"}, {"cache_scope": "customer"}) == "key:bot"
    assert scope({}, users={"ann": {"customer": "acme", "cache_scope": "off"}}) == ""


def test_a_caller_without_a_team_or_user_has_the_next_narrower_scope() -> None:
    assert scope({"scope": "team"}, {"team": ""}) == "user:ann"
    assert scope({"scope": "team"}, {"team": "", "user": ""}) == "key:bot"
    assert scope({"scope": "user"}, {"user": ""}) == "key:bot"


def test_a_key_that_is_created_again_has_a_cache_of_its_own() -> None:
    one = terms({"scope": "key"})
    other = terms({"scope": "key"}, {"environment": "prod"})
    assert one == other
    assert one is not None
    assert one.scope.startswith("key:bot:")


def test_only_the_declared_models_are_cached() -> None:
    assert scope({"models": ["n*"]}) == ""
    assert scope({"models": ["m"]}) == "customer:acme"


def test_the_embedding_is_reserved_with_the_request() -> None:
    plain = admission({}).charge
    assert plain == 10 * 3 + 2 * 5
    assert admission({"semantic": {"embeddings": "e/embed"}}).charge == plain + 10 * 2
    assert admission({"semantic": {}}).charge == plain
    found = terms({"semantic": {"embeddings": "e/embed"}})
    assert found is not None
    assert found.embedding is not None
    assert found.embedding[0] == 2.0


def test_without_a_price_of_the_embedding_similar_requests_are_not_compared() -> None:
    for embeddings in ("p2/unknown", "e/embed"):
        found = terms(
            {"semantic": {"embeddings": embeddings}},
            model_prices={"p/*": {"input": 3, "output": 5}},
        )
        assert found is not None
        assert found.embedding is None
    found = terms({"semantic": {}})
    assert found is not None
    assert found.embedding == ()


@pytest.mark.parametrize(
    "key", [{"models": ["p/*"]}, {"model_regions": ["eu"]}, {"model_labels": ["private"]}]
)
def test_a_caller_without_a_grant_for_the_embedding_model_has_no_comparison(key: Any) -> None:
    provider = {"kind": "openai", "url": "http://p/v1", "region": "eu", "labels": ["private"]}
    found = terms(
        None,
        key,
        providers={
            "p": {**provider, "cache": {"semantic": {"embeddings": "e/embed"}}},
            "e": {"kind": "openai", "url": "http://e/v1"},
        },
    )
    assert found is not None
    assert found.embedding is None
