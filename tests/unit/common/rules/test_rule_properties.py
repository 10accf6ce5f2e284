"""What slicing decides is what the engine decides when it is asked about every rule, each time."""

import json
import re
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from cedarpy import is_authorized
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolbus_common.config import Rule
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.rules import (
    MOST_PROBLEMS,
    Asker,
    Case,
    Rulebook,
    RuleError,
    Verdict,
    policies,
    problems,
)
from toolbus_common.rules.policy_set import moment
from toolbus_common.rules.request import entities_of
from toolbus_common.rules.schema import METHODS
from toolbus_policy.admission.authorizer import METHODS as DECIDED

WORDS = ("a", "b", "ab", "")
NAMES = ("p", "q")
ARGUMENT = st.sampled_from([f"context.arguments.{name}" for name in NAMES])
TEXT = st.one_of(
    ARGUMENT,
    st.sampled_from(["context.arguments.p.q", "context.family", "principal.team", "resource.name"]),
    st.sampled_from(WORDS).map(json.dumps),
)
NUMBER = st.one_of(
    ARGUMENT,
    st.sampled_from(["context.cost", "resource.price", "context.time.hour", "context.time.epoch"]),
    st.integers(-3, 30).map(str),
)
ATOM = st.one_of(
    st.sampled_from(NAMES).map(lambda name: f"context.arguments has {name}"),
    st.just("context.arguments has p.q"),
    st.builds("{} == {}".format, TEXT | NUMBER, TEXT | NUMBER),
    st.builds("{} != {}".format, TEXT | NUMBER, TEXT | NUMBER),
    st.builds("{} {} {}".format, NUMBER, st.sampled_from(["<", "<=", ">", ">="]), NUMBER),
    st.builds("{} + {} > 3".format, NUMBER, NUMBER),
    st.builds("{} like {}".format, TEXT, st.sampled_from(['"a*"', '"*b"', '"*a*b*"', '"a"', '""'])),
    st.builds('["a", "b"].contains({})'.format, TEXT),
    st.builds("[1, 2].contains({})".format, NUMBER),
    st.builds("context.arguments.p.contains({})".format, TEXT | NUMBER),
    st.sampled_from(
        [
            'principal in Team::"a"',
            'resource in Server::"s"',
            'resource.labels.contains("a")',
            "context.arguments == {p: 1}",
            "context has arguments",
            "context.arguments.p",
            "true",
            "false",
        ]
    ),
)
CONDITION = st.recursive(
    ATOM,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("(if {} then {} else {})".format, inner, inner, inner),
    ),
    max_leaves=5,
)
CLAUSE = st.builds("{} {{ {} }}".format, st.sampled_from(["when", "unless"]), CONDITION)
POLICY = st.builds(
    "forbid(principal{}, action{}, resource{}) {};".format,
    st.sampled_from(["", ' == Key::"a"', ' in Team::"a"', " is Key"]),
    st.sampled_from(["", ' == Action::"tools/call"']),
    st.sampled_from(["", ' == Tool::"s__t"', ' in Server::"s"']),
    st.lists(CLAUSE, max_size=3).map(" ".join),
)
RULE = st.builds(
    Rule,
    cedar=st.lists(POLICY, min_size=1, max_size=2).map("\n".join),
    effect=st.sampled_from(["deny", "approve"]),
    shadow=st.booleans(),
)
RULES = st.lists(RULE, max_size=6).map(lambda rules: {f"r{at}": r for at, r in enumerate(rules)})
SCALAR = st.sampled_from([*WORDS, 0, 1, 2, -1, 2**63 - 1, True, False])
ARGUMENTS = st.dictionaries(
    st.sampled_from([*NAMES, "z"]),
    SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(st.sampled_from(NAMES), SCALAR),
)
CASES = st.builds(
    Case,
    asker=st.builds(Asker, key=st.sampled_from("ab"), team=st.sampled_from(WORDS)),
    method=st.sampled_from(["tools/call", "prompts/get"]),
    server=st.sampled_from("st"),
    tool=st.sampled_from("tu"),
    labels=st.sampled_from([(), ("a",), ("b", "c")]),
    cost=st.integers(0, 5),
    family=st.sampled_from(["modern", "a"]),
)


def everything(rules: dict[str, Rule], case: Case, arguments: Any, now: float) -> Verdict:
    """Evaluate every rule on its own, with all the arguments."""
    context = {**case.settled, "arguments": arguments, "time": moment(now)}
    request = {**case.request, "context": json.dumps(context)}
    matched, failed = [], []
    for name, rule in rules.items():
        result = is_authorized(request, rule.cedar, entities_of(case)).diagnostics
        matched += [name] if result.reasons else []
        failed += [name] if result.errors else []
    shadow = [
        message
        for name, rule in rules.items()
        if rule.shadow
        for message in [name] * (name in matched) + [f"{name}:error"] * (name in failed)
    ]
    firm = [name for name, rule in rules.items() if not rule.shadow]
    refusing = [name for name in firm if name in matched and rules[name].effect == "deny"]
    faulty = [name for name in firm if name in failed]
    asking = [name for name in firm if name in matched]
    if refusing or faulty:
        return Verdict(denied_by=(refusing + faulty)[0], shadow=tuple(shadow))
    return Verdict(approve_by=(asking or [""])[0], shadow=tuple(shadow))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(RULES, CASES, ARGUMENTS, st.sampled_from([0, 40_000, 86_399, 2e9]))
def test_a_sliced_decision_equals_that_of_all_rules(
    rules: dict[str, Rule], case: Case, arguments: dict[str, Any], now: float
) -> None:
    sliced = Rulebook(rules).slice(case).decide(json.dumps(arguments).encode(), now)
    whole = everything(rules, case, arguments, now)
    assert (sliced.denied_by, sliced.approve_by, sliced.shadow) == (
        whole.denied_by,
        whole.approve_by,
        whole.shadow,
    )


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=300) | POLICY)
def test_problems_of_any_text_are_messages(text: str) -> None:
    for message in problems(text):
        assert message
        assert not re.search(r"Traceback|panicked", message)


@pytest.mark.parametrize(
    "body",
    [
        "(" * 5000 + "true" + ")" * 5000,
        "[" * 5000 + "1" + "]" * 5000,
        "true && " * 5000 + "true",
        "context" + ".a" * 5000,
        "if true then true else " * 2000 + "true",
        '"))))))))" == ' * 3 + "(" * 5000,
    ],
)
def test_a_text_nested_too_deeply_is_a_problem_not_a_crash(body: str) -> None:
    (message,) = problems(f"forbid(principal, action, resource) when {{ {body} }};")
    assert "nested too deeply" in message


@pytest.mark.parametrize("depth", range(15, 50))
@pytest.mark.parametrize("clause", ["when", "unless"])
@pytest.mark.parametrize(
    ("opening", "closing"), [("1 + (", ")"), ("2 > 1 && (", ")"), ("[", "]"), ("!(1 < ", ")")]
)
def test_a_text_without_problems_always_compiles(
    depth: int, clause: str, opening: str, closing: str
) -> None:
    nested = f"{opening * depth}1{closing * depth} == 1"
    text = f"forbid(principal, action, resource) {clause} {{ {nested} && context.cost > 1 }};"
    with suppress(RuleError):
        policies(text)
        book = Rulebook({"deep": Rule(cedar=text)})
        assert "its text" not in book.slice(Case(Asker("a"), "tools/call", "s", "t")).verdict.reason


@pytest.mark.parametrize("length", [50, 70, 90])
def test_a_long_chain_of_conditions_is_no_problem(length: int) -> None:
    request = "context.arguments has path && " + " && ".join(
        f'context.arguments.path != "/{at}"' for at in range(length)
    )
    text = f"forbid(principal, action, resource) when {{ {request} }};"
    assert problems(text) == []
    part = Rulebook({"r": Rule(cedar=text)}).slice(Case(Asker("a"), "tools/call", "s", "t"))
    assert part.decide(b'{"path": "/x"}', 0).denied_by == "r"
    assert part.decide(b'{"path": "/7"}', 0).denied_by == ""


def test_rules_know_every_method_that_policy_decides() -> None:
    assert set(METHODS) == DECIDED | {AGENT_RUN}


VALUES = [*map("".join, (w for n in range(5) for w in product("ab", repeat=n)))]
ODD: list[Any] = [0, 1, True, False, [], ["a"], [1, True], {"q": "a"}, {}]
CONDITIONS = [
    *(f'context.arguments.p like "{pattern}"' for pattern in ("a*a", "*a*b*", "ab", "*", "ab*ba")),
    *(f"context.arguments.p {sign} {other}" for sign in ("==", "!=") for other in ("1", '"a"')),
    *(f"context.arguments.p {sign} 1" for sign in ("<", "<=", ">", ">=")),
    '[1, "a"].contains(context.arguments.p)',
    "context.arguments.p.contains(1)",
    "context.arguments.p has q",
    'context.arguments.p.q == "a"',
    "context.arguments.p && true",
    "context.arguments.p || true",
]


@pytest.mark.parametrize("clause", ["when", "unless"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_denial_for_any_argument_equals_the_full_evaluation(condition: str, clause: str) -> None:
    rules = {"r": Rule(cedar=f"forbid(principal, action, resource) {clause} {{ {condition} }};")}
    case = Case(Asker("a"), "tools/call", "s", "t")
    part = Rulebook(rules).slice(case)
    for value in (*VALUES, *ODD):
        sliced = part.decide(json.dumps({"p": value}).encode(), 0)
        assert sliced.denied_by == everything(rules, case, {"p": value}, 0).denied_by, value


def test_every_mistake_is_reported_with_its_line() -> None:
    text = """// a ; comment
permit(principal, action, resource);
forbid(principal, action, resource) when { principal.team == "a;
;" && principal.teem == "b" };

forbid(principal, action, resource)
when { context.cost > 1 }
when { 1 == };
forbid(principal"""
    lines = [message.partition(":")[0] for message in problems(text)]
    assert lines == ["line 2", "line 3", "line 8", "line 9"]


def test_the_mistake_of_a_single_line_has_no_line() -> None:
    assert problems("forbid(principal") == ["is not Cedar: unexpected end of input"]


@pytest.mark.parametrize("odd", ['\\"', "\\\\", "\\", "/", '\\"//', "\n"])
@pytest.mark.parametrize("end", ["", "\\", '\\"', '"'])
def test_a_long_quoted_text_that_does_not_end_is_checked_at_once(odd: str, end: str) -> None:
    """Check texts of the maximum length: with a search from each quote, one takes a minute."""
    begin = 'forbid("'
    text = begin + odd * ((65_536 - len(begin) - len(end)) // len(odd)) + end
    assert 0 < len(problems(text)) <= MOST_PROBLEMS


def test_a_quoted_text_that_does_not_end_hides_no_nesting() -> None:
    assert "nested too deeply" in problems('forbid "' + "(" * 60)[0]


def test_the_number_of_reported_mistakes_is_limited() -> None:
    assert len(problems(";" * (MOST_PROBLEMS + 1))) == MOST_PROBLEMS
