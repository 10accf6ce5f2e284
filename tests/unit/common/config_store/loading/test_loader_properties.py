"""Whatever stands in a configuration file, the answer is a declaration or faults with lines."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.receivers.webhook_receiver import webhook_secret
from toolbus_common.config import Configuration
from toolbus_common.config_store.diff import changes
from toolbus_common.config_store.loading.document import read
from toolbus_common.config_store.loading.loader import load
from toolbus_common.config_store.redacted_view import exported, restored

names = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,12}", fullmatch=True)
# YAML's writer and reader disagree on line breaks beyond ASCII (NEL, LS, PS) inside a plain key.
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=40)
patterns = texts.filter(bool)
periods = st.sampled_from(["hour", "day", "week", "month"])
budgets = st.fixed_dictionaries({"usd": st.floats(0, 1e6), "per": periods})
servers = st.one_of(
    st.fixed_dictionaries({"url": names.map("https://{}.example/mcp".format)}),
    st.fixed_dictionaries({"command": st.lists(names, min_size=1, max_size=3)}),
)
keys = st.fixed_dictionaries(
    {}, optional={"tools": st.lists(patterns, max_size=3), "budget": budgets, "expires": st.dates()}
)
files = st.fixed_dictionaries(
    {},
    optional={
        "servers": st.dictionaries(names, servers, max_size=4),
        "keys": st.dictionaries(names, keys, max_size=4),
        "prices": st.dictionaries(patterns, st.floats(0, 100), max_size=4),
    },
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
sections = st.dictionaries(st.sampled_from([*Configuration.model_fields, "else"]), anything)


@given(st.text(max_size=300))
def test_no_text_makes_the_loader_fail(text: str) -> None:
    loaded = load(text, {})
    assert all(1 <= problem.line <= text.count("\n") + len(text) + 1 for problem in loaded.problems)


@given(sections)
def test_no_structure_makes_the_loader_fail(data: dict[str, object]) -> None:
    text = yaml.safe_dump(data, allow_unicode=True)
    loaded = load(text, {})
    assert all(1 <= problem.line <= text.count("\n") + 1 for problem in loaded.problems)
    assert not loaded.problems or loaded.configuration == Configuration()


@given(files)
def test_a_valid_file_is_loaded_unchanged(data: dict[str, object]) -> None:
    loaded = load(yaml.safe_dump(data, allow_unicode=True), {})
    assert loaded.problems == ()
    assert loaded.configuration == Configuration.model_validate(data)


@given(files, files)
def test_a_difference_is_reported_exactly_where_there_is_one(
    one: dict[str, object], other: dict[str, object]
) -> None:
    old, new = Configuration.model_validate(one), Configuration.model_validate(other)
    assert (changes(old, new) == []) == (old == new)


@given(files, names)
def test_a_planted_problem_is_found_on_its_line(data: dict[str, object], field: str) -> None:
    text = yaml.safe_dump(data, allow_unicode=True, width=100_000) if data else ""
    planted = f"{text}planted-{field}: 1\n"
    (problem,) = load(planted, {}).problems
    assert (problem.line, problem.path) == (planted.count("\n"), f"planted-{field}")


@given(sections)
def test_the_reader_with_lines_agrees_with_yaml(data: dict[str, object]) -> None:
    text = yaml.safe_dump(data, allow_unicode=True)
    document = read(text)
    assert document.problems == []
    assert yaml.safe_dump(document.data) == yaml.safe_dump(yaml.safe_load(text))


HASH = "a" * 64
HOOK_SECRET = webhook_secret("canary-of-a-hook-24-bytes")
credentials = st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["x" * 9, "${env:X}", ""]))


@given(files, credentials, st.sampled_from(["", HASH]))
def test_an_exported_configuration_applied_again_changes_nothing(
    data: dict[str, Any], headers: dict[str, str], secret_hash: str
) -> None:
    for server in data.get("servers", {}).values():
        server["headers" if "url" in server else "env"] = headers
    for key in data.get("keys", {}).values():
        key["secret_hash"] = secret_hash
    hook = {"url": "https://hook.example", "secret": HOOK_SECRET}
    sections = {
        "webhooks": {"hook": hook},
        "admins": {"ann": {"role": "viewer"}},
        "readers": {"ben": {"customers": ["acme"], "secret_hash": HASH}},
    }
    old = Configuration.model_validate({**data, **sections})
    text = yaml.safe_dump(exported(old), sort_keys=False, allow_unicode=True)
    assert HASH not in text
    assert HOOK_SECRET not in text
    loaded = load(text, {})
    assert loaded.problems == ()
    assert changes(old, restored(loaded.configuration, old)) == []
