"""What the rules say of a call: which rule refuses it, which wants a person, which only watches."""

from typing import Any

import msgspec
import pytest

from toolbus_common.config import Rule
from toolbus_common.rules import Asker, Case, Rulebook, Verdict

ETC = (
    "forbid(principal, action, resource) when {"
    ' context.arguments has path && context.arguments.path like "/etc*" };'
)
NIGHT = "forbid(principal, action, resource) when { context.time.hour < 6 };"
OPS = 'forbid(principal in Team::"ops", action, resource in Server::"docs");'
NOON = 12 * 3600.0  # of a Thursday, the first day of the epoch
MIDNIGHT = 0.0
CASE = Case(Asker("bot", "ops", "ada", "acme", "production"), "tools/call", "docs", "read")


def rule(cedar: str, **fields: Any) -> Rule:
    return Rule.model_validate({"cedar": cedar, **fields})


def decide(
    rules: dict[str, Rule], arguments: Any = None, now: float = NOON, case: Case = CASE
) -> Verdict:
    sent = arguments if isinstance(arguments, bytes) else msgspec.json.encode(arguments or {})
    return Rulebook(rules).slice(case).decide(sent, now)


def test_a_rule_that_does_not_match_has_no_effect() -> None:
    assert decide({"etc": rule(ETC)}, {"path": "/home/ada"}) == Verdict()


def test_a_rule_that_matches_is_named_with_its_reason() -> None:
    verdict = decide({"etc": rule(ETC, reason="Ask the platform team.")}, {"path": "/etc/passwd"})
    assert verdict.denied_by == "etc"
    assert verdict.reason == "The rule 'etc' denies this call: Ask the platform team."


def test_of_rejecting_rules_the_first_declared_is_named() -> None:
    rules = {"night": rule(NIGHT), "ops": rule(OPS), "etc": rule(ETC)}
    assert decide(rules, {"path": "/etc/x"}).denied_by == "ops"
    assert decide(rules, {"path": "/etc/x"}, MIDNIGHT).denied_by == "night"


def test_a_rejection_precedes_an_approval() -> None:
    rules = {"ask": rule(OPS, effect="approve"), "etc": rule(ETC)}
    asking, refused = decide(rules), decide(rules, {"path": "/etc/x"})
    assert (asking.denied_by, asking.approve_by) == ("", "ask")
    assert asking.reason.startswith("The rule 'ask' requires approval")
    assert (refused.denied_by, refused.approve_by) == ("etc", "")


def test_a_shadow_rule_is_recorded_and_decides_nothing() -> None:
    rules = {"etc": rule(ETC, shadow=True), "ops": rule(OPS, effect="approve", shadow=True)}
    assert decide(rules, {"path": "/etc/x"}) == Verdict(shadow=("etc", "ops"))


@pytest.mark.parametrize(
    ("team", "server", "refused_by"),
    [("ops", "docs", "ops"), ("web", "docs", ""), ("ops", "notes", "")],
)
def test_keys_are_in_teams_and_tools_in_servers(team: str, server: str, refused_by: str) -> None:
    case = Case(Asker("bot", team), "tools/call", server, "read")
    assert decide({"ops": rule(OPS)}, case=case).denied_by == refused_by


def test_labels_environment_price_and_method_are_attributes() -> None:
    text = (
        'forbid(principal, action == Action::"tools/call", resource) when {'
        ' principal.environment == "production" && resource.labels.contains("destructive")'
        ' && context.cost > 1000000 && resource.price > 1000000 && context.family == "modern" };'
    )
    case = Case(CASE.asker, "tools/call", "docs", "x", ("destructive",), 2_000_000, "modern")
    assert decide({"dear": rule(text)}, case=case).denied_by == "dear"
    for other in ({"labels": ()}, {"cost": 5}, {"method": "prompts/get"}, {"family": "legacy"}):
        fields = {name: getattr(case, name) for name in Case.__slots__} | other
        assert decide({"dear": rule(text)}, case=Case(**fields)) == Verdict()


def test_a_rule_about_time_needs_no_arguments() -> None:
    part = Rulebook({"night": rule(NIGHT)}).slice(CASE)
    assert not part.reads_arguments
    assert part.decide(b"not JSON", NOON) == Verdict()
    assert part.decide(b"not JSON", MIDNIGHT).denied_by == "night"


def test_a_weekday_is_1_to_7_starting_on_monday() -> None:
    text = "forbid(principal, action, resource) when { context.time.weekday == 4 };"
    assert decide({"thursday": rule(text)}).denied_by == "thursday"
    assert decide({"thursday": rule(text)}, now=NOON + 86_400) == Verdict()


@pytest.mark.parametrize("path", [7, True, 1.5, None, ["/etc"], {"x": 1}, 2**70])
def test_an_argument_of_another_type_than_the_rules_is_rejected(path: Any) -> None:
    verdict = decide({"etc": rule(ETC)}, {"path": path})
    assert verdict.denied_by == "etc"
    assert "cannot be evaluated" in verdict.reason


def test_a_problem_never_quotes_an_argument() -> None:
    text = (
        "forbid(principal, action, resource) when {"
        " context.arguments has n && context.arguments.n + 1 > 5 };"
    )
    verdict = decide({"sum": rule(text)}, {"n": 2**63 - 1})
    assert verdict.denied_by == "sum"
    assert str(2**63 - 1) not in verdict.reason


@pytest.mark.parametrize(
    "arguments",
    [
        b'{"path": {"__extn": {"fn": "ip", "arg": "zz"}}}',
        b'{"path": {"__entity": {"type": "A", "id": "b"}, "x": 1}}',
        b'{"path": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"path": "' + b"x" * 300_000 + b'"}',
        b'{"path": "\\ud800"}',
        b"[1]",
        b"not JSON",
    ],
)
def test_unrepresentable_arguments_are_rejected_by_rules_that_read_them(
    arguments: bytes,
) -> None:
    rules = {"etc": rule(ETC), "night": rule(NIGHT)}
    assert decide(rules, arguments).denied_by == "etc"
    assert decide({"night": rule(NIGHT)}, arguments) == Verdict()


def test_arguments_no_rule_reads_may_have_any_value() -> None:
    arguments = {"ratio": 1.5, "none": None, "odd": {"__extn": 1}, "path": "/home"}
    assert decide({"etc": rule(ETC)}, arguments) == Verdict()


def test_a_failing_shadow_rule_is_recorded_and_rejects_nothing() -> None:
    rules = {"etc": rule(ETC, shadow=True), "night": rule(NIGHT)}
    for arguments in (b'{"path": 7}', b'{"path": {"__extn": 1}}'):
        assert decide(rules, arguments) == Verdict(shadow=("etc:error",))


def test_a_fraction_differs_from_an_integer_and_a_whole_float_is_one() -> None:
    text = (
        "forbid(principal, action, resource) when {"
        " context.arguments has n && context.arguments.n == 100 };"
    )
    assert decide({"n": rule(text)}, b'{"n": 100.5}') == Verdict()
    assert decide({"n": rule(text)}, b'{"n": 100.0}').denied_by == "n"
    assert decide({"n": rule(text)}, b'{"n": 1e2}').denied_by == "n"


def test_different_fractions_are_different_to_a_rule() -> None:
    text = (
        "forbid(principal, action, resource) when { context.arguments has a"
        " && context.arguments has b && context.arguments.a == context.arguments.b };"
    )
    assert decide({"same": rule(text)}, {"a": 1.5, "b": 2.5}) == Verdict()
    assert decide({"same": rule(text)}, {"a": 1.5, "b": 1.5}).denied_by == "same"


def test_an_invalid_rule_rejects_every_call_and_as_shadow_is_recorded() -> None:
    assert decide({"broken": rule("forbid(")}).denied_by == "broken"
    assert decide({"broken": rule("forbid(", shadow=True)}) == Verdict(shadow=("broken:error",))


def test_a_rule_that_fails_on_the_principal_rejects_the_call() -> None:
    text = 'forbid(principal, action, resource) when { principal.rank == "x" };'
    assert decide({"rank": rule(text)}).denied_by == "rank"


def test_without_arguments_only_rules_that_need_none_are_evaluated() -> None:
    part = Rulebook({"etc": rule(ETC), "night": rule(NIGHT)}).slice(CASE)
    assert part.reads_arguments
    assert part.decide(None, NOON) == Verdict()
    assert part.decide(None, MIDNIGHT).denied_by == "night"


def test_names_with_quotes_and_line_breaks_are_escaped() -> None:
    odd = 'a"b\n\\c::'
    case = Case(Asker(odd, odd, odd, odd, odd), "tools/call", odd, odd, (odd,))
    text = 'forbid(principal, action, resource) when { resource.labels.contains("x") };'
    assert decide({"x": rule(text)}, case=case) == Verdict()
