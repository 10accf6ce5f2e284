"""Routing of model requests: grants, the order of targets, and fallbacks."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.builders.configurations import configured
from toolbus_common import errors
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.access.principal import Principal, scoped
from toolbus_common.config import Configuration, ModelTarget, Patterns
from toolbus_common.errors import ModelRefusedError, ToolbusError, UnknownModelError
from toolbus_common.model_api.routing import (
    falls_back,
    model_names,
    ordered,
    position_of,
    targets_of,
)

PROVIDERS = {
    "local": {"kind": "openai", "url": "http://127.0.0.1:9/v1", "models": ["gemma", "org/qwen"]},
    "claude": {"kind": "anthropic", "key": "k", "models": ["haiku"]},
}
ALIASES = {
    "fast": [
        {"provider": "local", "model": "gemma", "weight": 3},
        {"provider": "claude", "model": "haiku"},
    ],
    "secret": [{"provider": "claude", "model": "haiku"}],
    "broken": [{"provider": "gone", "model": "x"}],
    "empty": [],
}


def configuration_with(*models: str, **sections: Any) -> Configuration:
    return configured(
        providers=PROVIDERS,
        models=ALIASES,
        keys={"bot": {"models": models, **sections.pop("key", {})}},
        **sections,
    )


def principal_of(configuration: Configuration) -> Principal:
    return ConfigSnapshot.of(configuration).principal("bot")


def targets(
    name: str, *models: str, restrictions: tuple[Patterns, ...] = (), sticky: bytes = b"s"
) -> list[str]:
    configuration = configuration_with(*models)
    found = targets_of(name, principal_of(configuration), configuration, restrictions, sticky)
    return [f"{each.provider}/{each.model}" for each in found]


def target(name: str, weight: int | None = None) -> ModelTarget:
    return ModelTarget(provider="p", model=name, weight=weight)


target_lists = st.lists(st.one_of(st.none(), st.integers(1, 100)), min_size=1, max_size=8).map(
    lambda weights: [target(f"m{n}", weight) for n, weight in enumerate(weights)]
)
positions = st.floats(0, 1, exclude_max=True)


def test_an_alias_leads_to_its_targets_in_order() -> None:
    assert targets("fast", "fast") == ["local/gemma", "claude/haiku"]


def test_a_model_without_an_alias_is_its_only_target() -> None:
    assert targets("local/anything", "local/*") == ["local/anything"]
    assert targets("local/org/qwen:free", "local/*") == ["local/org/qwen:free"]


def test_a_grant_of_an_alias_does_not_grant_its_targets_by_name() -> None:
    assert targets("secret", "secret") == ["claude/haiku"]
    with pytest.raises(UnknownModelError):
        targets("claude/haiku", "secret")


def test_a_grant_of_the_targets_does_not_grant_an_alias() -> None:
    with pytest.raises(UnknownModelError):
        targets("secret", "claude/*", "local/*")


@pytest.mark.parametrize(
    "name",
    [
        "nothing", "gone/x", "broken", "empty", "local/", "/gemma", "/", "local", "local/a b",
        "local/a\nb", "local/\x7f", "local/é", "local/" + "m" * 300,
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_unknown_like_one_that_is_hidden(name: str) -> None:
    with pytest.raises(UnknownModelError) as unknown:
        targets(name, "*")
    with pytest.raises(UnknownModelError) as hidden:
        targets(name)
    assert unknown.value.as_data() == hidden.value.as_data()


def test_hidden_names_have_the_message_of_unknown_names() -> None:
    messages = set()
    for name in ("secret", "claude/haiku", "nothing", "gone/x"):
        with pytest.raises(UnknownModelError) as error:
            targets(name, "fast")
        messages.add(error.value.reason.replace(name, ""))
        assert error.value.data == {}
    assert len(messages) == 1


def test_restrictions_of_a_request_hide_names() -> None:
    assert targets("fast", "*", restrictions=(("fas?",),)) == ["local/gemma", "claude/haiku"]
    for restrictions in ((), ("local/*",)):
        with pytest.raises(UnknownModelError):
            targets("fast", "*", restrictions=(restrictions,))
    configuration = configuration_with("*")
    principal = principal_of(configuration)
    shown = model_names(principal, configuration, (("local/*", "fast"), ("*s*", "*g*")), {})
    assert [name for name, _ in shown] == ["fast", "local/gemma", "local/org/qwen"]
    with pytest.raises(UnknownModelError):
        targets("fast", "local/*", restrictions=(("fast",),))


def test_a_token_of_a_smaller_scope_sees_what_its_user_may_use() -> None:
    configuration = configuration_with("fast", groups={"g": {"tools": ["*"], "scope": "first"}})
    whole = principal_of(configuration)
    found = scoped(whole, "tools:g")
    assert model_names(found, configuration, (), {}) == [("fast", "toolbus")]
    assert targets_of("fast", found, configuration, (), b"s")


def test_every_level_that_has_models_must_grant_the_model() -> None:
    levels = {
        "teams": {"t": {"customer": "acme", "models": ["fast", "secret"]}},
        "customers": {"acme": {"models": ["fast", "claude/*"]}},
        "groups": {"g": {"models": ["*"]}},
    }
    configuration = configured(
        providers=PROVIDERS,
        models=ALIASES,
        keys={"bot": {"groups": ["g"], "team": "t"}, "none": {"tools": ["*"]}},
        **levels,
    )
    snapshot = ConfigSnapshot.of(configuration)
    assert model_names(snapshot.principal("bot"), configuration, (), {}) == [("fast", "toolbus")]
    assert model_names(snapshot.principal("none"), configuration, (), {}) == []


def test_a_key_of_a_missing_team_may_use_no_model() -> None:
    configuration = configuration_with("*", key={"team": "gone"})
    assert model_names(principal_of(configuration), configuration, (), {}) == []


def test_the_list_has_aliases_and_models_that_the_key_may_use() -> None:
    configuration = configuration_with("*")
    assert model_names(principal_of(configuration), configuration, (), {}) == [
        ("fast", "toolbus"),
        ("secret", "toolbus"),
        ("claude/haiku", "claude"),
        ("local/gemma", "local"),
        ("local/org/qwen", "local"),
    ]
    configuration = configuration_with("fast", "local/org/*")
    assert model_names(principal_of(configuration), configuration, (), {}) == [
        ("fast", "toolbus"),
        ("local/org/qwen", "local"),
    ]


def test_models_that_a_provider_lists_are_used_without_configured_ones() -> None:
    configuration = configuration_with("local/*", "claude/*")
    claude = configuration.providers["claude"].model_copy(update={"models": ()})
    providers = {**configuration.providers, "claude": claude}
    configuration = configuration.model_copy(update={"providers": providers, "models": {}})
    listed = {"claude": ("opus",), "local": ("other",), "gone": ("x",)}
    assert model_names(principal_of(configuration), configuration, (), listed) == [
        ("claude/opus", "claude"),
        ("local/gemma", "local"),
        ("local/org/qwen", "local"),
    ]


@given(target_lists, positions)
def test_every_target_is_tried_once(found: list[ModelTarget], position: float) -> None:
    order = ordered(found, position)
    assert sorted(each.model for each in order) == [each.model for each in found]


@given(target_lists, positions)
def test_fallbacks_follow_the_weighted_targets_in_their_order(
    found: list[ModelTarget], position: float
) -> None:
    order = ordered(found, position)
    weighted = sum(1 for each in found if each.weight)
    assert all(each.weight for each in order[:weighted])
    assert order[weighted:] == [each for each in found if not each.weight]


@given(target_lists, positions)
def test_the_other_weighted_targets_follow_by_weight(
    found: list[ModelTarget], position: float
) -> None:
    weights = [each.weight for each in ordered(found, position) if each.weight][1:]
    assert weights == sorted(weights, reverse=True)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_each_position_belongs_to_a_target_in_proportion_to_its_weight(weights: list[int]) -> None:
    found = [target(f"m{n}", weight) for n, weight in enumerate(weights)]
    total = sum(weights)
    first = Counter(ordered(found, (n + 0.5) / total)[0].model for n in range(total))
    assert first == {f"m{n}": weight for n, weight in enumerate(weights)}


@given(st.binary(min_size=1, max_size=64))
def test_a_key_always_has_the_same_position(key: bytes) -> None:
    assert 0 <= position_of(key) < 1
    assert position_of(key) == position_of(key)


def test_requests_without_a_key_are_spread() -> None:
    assert len({position_of(b"") for _ in range(50)}) > 1


def test_keys_are_spread_evenly() -> None:
    found = [target("a", 1), target("b", 1)]
    first = Counter(ordered(found, position_of(b"%d" % n))[0].model for n in range(2000))
    assert 850 < first["a"] < 1150  # the keys are fixed, so the numbers are too


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_provider_that_may_recover_is_left_for_the_next_target(status: int) -> None:
    assert falls_back(ModelRefusedError("No.", status=status))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, None, "500"])
def test_a_refusal_that_every_target_would_repeat_is_final(status: Any) -> None:
    assert not falls_back(ModelRefusedError("No.", status=status))


def test_only_failures_of_a_target_lead_to_a_fallback() -> None:
    falling = {
        each.__name__
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, ToolbusError) and falls_back(each("No."))
    }
    assert falling == {
        "UpstreamTimeoutError", "UpstreamDeadError", "UpstreamInvalidError", "BreakerOpenError",
        "OverloadedError", "ExecutorDownError", "ServerDrainedError",
    }  # fmt: skip


def test_targets_and_models_of_other_regions_are_left_out() -> None:
    local = {**PROVIDERS["local"], "region": "eu", "labels": ["own"]}

    def served(models: dict[str, Any], **key: Any) -> tuple[list[str], list[str]]:
        configuration = configured(
            providers={**PROVIDERS, "local": local},
            models=models,
            keys={"bot": {"models": ["*"], **key}},
        )
        principal = principal_of(configuration)
        try:
            found = targets_of("fast", principal, configuration, (), b"s")
        except UnknownModelError:
            found = []
        names = [name for name, _ in model_names(principal, configuration, (), {})]
        return [each.provider for each in found], names

    both: list[dict[str, Any]] = [
        {"provider": "local", "model": "gemma", "weight": 3},
        {"provider": "claude", "model": "haiku"},
    ]
    fast = {"fast": both}
    everywhere = ["fast", "claude/haiku", "local/gemma", "local/org/qwen"]
    assert served(fast) == (["local", "claude"], everywhere)
    european = ["fast", "local/gemma", "local/org/qwen"]
    assert served(fast, model_regions=["eu"]) == (["local"], european)
    assert served(fast, model_labels=["own"]) == (["local"], european)
    assert served(fast, model_regions=["us"]) == ([], [])
    only = {"fast": [{**each, "region": "eu"} for each in both]}
    assert served(only) == (["local"], everywhere)
    none = {"fast": [{**each, "labels": ["cloud"]} for each in both]}
    assert served(none) == ([], everywhere[1:])
