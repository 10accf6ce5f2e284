"""Rules of a snapshot: compiled once, sliced once, dropped with the configuration."""

from typing import Any

import msgspec
import pytest

from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallRequested
from toolbus_common.rules import SILENT, Case, Rulebook, Slice
from toolbus_policy.admission import rule_evaluator
from toolbus_policy.admission.rule_evaluator import RuleCompiler, RuleEvaluator

NOON = 12 * 3600.0
WHO = (
    'forbid(principal in Team::"ops", action, resource in Server::"docs") when {'
    ' principal.user == "ada" && principal.customer == "acme"'
    ' && principal.environment == "prod" && resource.labels.contains("risky") };'
)
ETC = (
    "forbid(principal, action, resource) when {"
    ' context.arguments has path && context.arguments.path like "/etc*" };'
)


def snapshot(**rules: Any) -> ConfigSnapshot:
    configuration = Configuration.model_validate(
        {
            "customers": {"acme": {}},
            "teams": {"ops": {"customer": "acme", "environment": "prod"}},
            "users": {"ada": {"customer": "acme"}},
            "keys": {
                "bot": {"team": "ops", "user": "ada", "tools": ["*"]},
                "other": {},
                "another": {},
            },
            "labels": {"docs__*": ["risky"]},
            "rules": {name: {"cedar": text} for name, text in rules.items()},
        }
    )
    return ConfigSnapshot.of(configuration)


def call(server: str = "docs", **arguments: Any) -> CallRequested:
    return requested_call(server=server, tool="read", arguments=msgspec.json.encode(arguments))


def ruled(of: RuleEvaluator | None, key: str, request: CallRequested) -> str:
    assert of is not None
    return of.verdict(request, ConfigSnapshot.of(of.declared).principal(key), 0, NOON).denied_by


def test_a_rule_reads_the_hierarchy_of_a_key_and_the_labels_of_a_tool() -> None:
    of = RuleCompiler().of(snapshot(who=WHO))
    assert ruled(of, "bot", call()) == "who"
    assert ruled(of, "bot", call("notes")) == ""
    assert ruled(of, "other", call()) == ""


def test_without_rules_there_is_no_evaluator() -> None:
    assert RuleCompiler().of(snapshot()) is None


def test_rules_are_compiled_only_when_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = []

    def counted(rules: Any) -> Rulebook:
        compiled.append(list(rules))
        return Rulebook(rules)

    rule_compiler = RuleCompiler()
    monkeypatch.setattr(rule_evaluator, "Rulebook", counted)
    first = rule_compiler.of(snapshot(who=WHO))
    assert rule_compiler.of(snapshot(who=WHO)) is not first
    rule_compiler.of(snapshot(who=WHO, etc=ETC))
    rule_compiler.of(snapshot(etc=ETC, who=WHO))  # another order names another rule
    assert compiled == [["who"], ["who", "etc"], ["etc", "who"]]


def test_another_snapshot_has_an_empty_cache() -> None:
    rule_compiler = RuleCompiler()
    before = snapshot(who=WHO)
    assert ruled(rule_compiler.of(before), "bot", call()) == "who"
    teams = before.configuration.teams
    moved = before.configuration.model_copy(
        update={"teams": {"ops": teams["ops"].model_copy(update={"environment": "dev"})}}
    )
    assert ruled(rule_compiler.of(ConfigSnapshot.of(moved)), "bot", call()) == ""


def test_calls_no_rule_matches_share_one_decision() -> None:
    shown = snapshot(who=WHO)
    of = RuleCompiler().of(shown)
    assert of is not None
    assert of.verdict(call("notes"), shown.principal("bot"), 0, NOON) is SILENT


def test_a_key_that_changed_team_is_evaluated_again_alone() -> None:
    rule_compiler, before = RuleCompiler(), snapshot(who=WHO)
    first = rule_compiler.of(before)
    assert first is not None
    bot, other = before.principal("bot"), before.principal("other")
    assert first.verdict(call(), bot, 0, NOON).denied_by == "who"
    after = before.after(2, {"bot": bot.own.model_copy(update={"team": ""})})
    assert rule_compiler.of(after) is first
    assert first.verdict(call(), after.principal("bot"), 0, NOON).denied_by == ""
    assert after.principal("other") is other


def slices(monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    """Return the keys for which rules were sliced after two keys called the same tool."""
    sliced: list[str] = []
    original = Rulebook.slice

    def noted(book: Rulebook, case: Case) -> Slice:
        sliced.append(case.asker.key)
        return original(book, case)

    monkeypatch.setattr(Rulebook, "slice", noted)
    of = RuleCompiler().of(snapshot(one=text))
    for key, refused_by in (("other", "one"), ("another", ""), ("other", "one")):
        assert ruled(of, key, call()) == (refused_by if "Key" in text else "one")
    return sliced


def test_keys_equal_for_the_rules_share_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "forbid(principal, action, resource);"
    assert len(slices(monkeypatch, text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        'forbid(principal == Key::"other", action, resource);',
        'forbid(principal, action, resource) when { principal == Key::"other" };',
        (
            "forbid(principal, action, resource) when {"
            ' context.time.hour == 12 && [Key::"other"].contains(principal) };'
        ),
    ],
)
def test_a_rule_about_one_key_does_not_affect_others(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    assert slices(monkeypatch, text) == ["other", "another"]


def test_more_cases_than_the_cache_holds_are_still_evaluated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rule_evaluator, "MAX_ENTRIES", 2)
    of = RuleCompiler().of(snapshot(etc=ETC))
    for server in ("a", "b", "c", "d", "a"):
        assert ruled(of, "bot", call(server, path="/etc/x")) == "etc"
        assert ruled(of, "bot", call(server, path="/tmp")) == ""
