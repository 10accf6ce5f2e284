"""Validation of guards: unknown guards, servers and rules are errors with their line and a fix."""

from typing import Any

import pytest
import yaml

from toolbus_common.config_store.loading.loader import load
from toolbus_common.guards.personal_data import model_options

GUARDS = {"secrets": {"kind": "secrets", "on": ["arguments"]}}
SERVER = {"url": "http://127.0.0.1:1/mcp"}


def problems(**declared: Any) -> list[str]:
    """Return the problems of a configuration, each with its line."""
    text = yaml.safe_dump({"guards": GUARDS} | declared, default_flow_style=False)
    found = load(text, {}).problems
    lines = text.splitlines()
    assert all("secret" in lines[each.line - 1] or "ghp" in lines[each.line - 1] for each in found)
    return [str(each) for each in found]


UNKNOWN = {"guards": ["secret"]}


@pytest.mark.parametrize(
    ("path", "declared"),
    [
        ("customers.acme", {"customers": {"acme": UNKNOWN}}),
        ("teams.ops", {"teams": {"ops": UNKNOWN}}),
        ("users.ann", {"users": {"ann": UNKNOWN}}),
        ("keys.bot", {"keys": {"bot": UNKNOWN}}),
        ("groups.staff", {"groups": {"staff": {"tools": ["*"], **UNKNOWN}}}),
        ("anonymous", {"anonymous": {"tools": ["docs__*"], **UNKNOWN}}),
        ("servers.docs", {"servers": {"docs": SERVER | UNKNOWN}}),
        ("servers.docs.tools.a", {"servers": {"docs": SERVER | {"tools": {"a": UNKNOWN}}}}),
        ("providers.p", {"providers": {"p": {"kind": "openai", "key": "x", **UNKNOWN}}}),
    ],
)
def test_a_reference_to_an_unknown_guard_is_an_error(path: str, declared: dict[str, Any]) -> None:
    message = "no guard 'secret' is configured; did you mean 'secrets'?"
    assert problems(**declared) == [f"{path}.guards.0: {message}"]
    known = yaml.safe_dump({"guards": GUARDS} | declared).replace("- secret\n", "- secrets\n")
    assert load(known, {}).problems == ()


def test_a_guard_of_a_model_must_be_configured() -> None:
    (found,) = problems(model_guards={"fast": ["secret"]})
    assert found.startswith("model_guards.fast.0: no guard 'secret' is configured")


def test_the_server_of_a_guard_must_be_configured() -> None:
    guard = {"kind": "mcp", "on": ["results"], "server": "secretary", "tool": "check"}
    (found,) = problems(guards={"g": guard})
    assert found == "guards.g.server: no server 'secretary' is configured; add it under servers"


@pytest.mark.parametrize("field", ["rules", "except_rules"])
def test_an_unknown_rule_is_an_error_that_names_the_most_similar_rule(field: str) -> None:
    (found,) = problems(guards={"g": GUARDS["secrets"] | {field: ["secret", "github-pat"]}})
    assert found.startswith(f"guards.g.{field}.0: no rule 'secret' is known; ")
    (near,) = problems(guards={"g": GUARDS["secrets"] | {field: ["ghp-github-pat"]}})
    assert "did you mean 'github-pat'?" in near


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_secret_bytes": 1}, "unknown option 'max_secret_bytes' of limits"),
        ({"max_depth": -1}, "option 'max_depth' must be a whole number of at least 0"),
        ({"output_schema": "yes"}, "option 'output_schema' must be true or false"),
        ({}, "limits needs at least one of the options"),
    ],
)
def test_wrong_limits_are_errors(options: dict[str, Any], message: str) -> None:
    declared = {"secret": {"kind": "limits", "on": ["results"], "options": options}}
    (found,) = load(yaml.safe_dump({"guards": declared}), {}).problems
    assert str(found).startswith(f"guards.secret.options: {message}")


def test_limits_within_their_bounds_are_accepted() -> None:
    options = {"max_bytes": 10, "max_depth": 3, "output_schema": True}
    declared = {"g": {"kind": "limits", "on": ["results"], "options": options}}
    assert load(yaml.safe_dump({"guards": declared}), {}).problems == ()


def warnings(declared: dict[str, Any]) -> list[str]:
    """Return the warnings of a configuration without errors."""
    found = load(yaml.safe_dump(declared), {})
    assert found.problems == ()
    return [str(each) for each in found.warnings]


def test_a_guard_that_is_attached_to_nothing_is_a_warning() -> None:
    (found,) = warnings({"guards": GUARDS})
    assert found.startswith("guards.secrets: is attached to nothing, so it checks nothing; name it")
    assert warnings({"guards": {"secrets": GUARDS["secrets"] | {"always": True}}}) == []
    used = {"guards": ["secrets"]}
    assert warnings({"guards": GUARDS, "customers": {"acme": used}}) == []
    assert warnings({"guards": GUARDS, "anonymous": {"tools": ["x__*"], **used}})[1:] == []


@pytest.mark.parametrize(
    ("section", "entry", "phase"),
    [
        ("customers", {}, "definitions"),
        ("servers", SERVER, "prompts"),
        ("providers", {"kind": "openai", "key": "x"}, "results"),
    ],
)
def test_a_phase_that_never_occurs_where_a_guard_is_attached_is_a_warning(
    section: str, entry: dict[str, Any], phase: str
) -> None:
    usual = {"customers": "arguments", "servers": "arguments", "providers": "prompts"}[section]
    guards = {"g": {"kind": "secrets", "on": [usual, phase]}}
    (found,) = warnings({"guards": guards, section: {"one": {**entry, "guards": ["g"]}}})
    assert found.startswith(f"guards.g: checks no {phase} where it is attached; attach it to")
    assert found.endswith(f"or remove {phase} from on")


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        (
            {"kind": "secrets", "options": {"x": 1}},
            "options do not apply to guards of kind secrets",
        ),
        ({"kind": "pii", "options": {"x": 1}}, "unknown option 'x' of pii; use models, model"),
        ({"kind": "pii", "options": {"models": 1}}, "option 'models' must be true or false"),
        ({"kind": "pii", "options": {"model": "m"}}, "model and language need models: true"),
        ({"kind": "pii", "options": {"models": True, "language": "E!"}}, "must be a code of a"),
    ],
)
def test_a_wrong_option_of_a_built_in_guard_is_an_error(
    guard: dict[str, Any], message: str
) -> None:
    text = yaml.safe_dump({"guards": {"g": {"on": ["results"], "always": True, **guard}}})
    (found,) = load(text, {}).problems
    assert message in str(found)


def test_a_guard_with_a_model_warns_where_presidio_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guard = {"kind": "pii", "on": ["results"], "always": True, "options": {"models": True}}
    monkeypatch.setattr(model_options, "find_spec", lambda _name: None)
    (found,) = warnings({"guards": {"g": guard}})
    assert "pip install 'toolbus[presidio]'" in found
    monkeypatch.setattr(model_options, "find_spec", lambda _name: object())
    assert warnings({"guards": {"g": guard}}) == []


def test_a_guard_whose_only_rule_needs_a_model_warns() -> None:
    guard = {"kind": "pii", "on": ["results"], "always": True, "rules": ["person"]}
    (found,) = warnings({"guards": {"g": guard}})
    assert "finds nothing" in found


def test_the_name_of_a_path_of_the_api_is_reserved() -> None:
    text = yaml.safe_dump({"guards": {"coverage": GUARDS["secrets"] | {"always": True}}})
    (found,) = load(text, {}).problems
    assert str(found) == "guards.coverage: is reserved; choose another name"
