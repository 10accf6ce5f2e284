"""The difference between two configurations: entry by entry, without secrets."""

from harness.builders.configurations import configured
from toolbus_common.config import Configuration
from toolbus_common.config_store.diff import changes


def lines_of(old: Configuration, new: Configuration) -> list[str]:
    return [str(change) for change in changes(old, new)]


def test_a_configuration_equals_itself() -> None:
    one = configured(keys={"bot": {"tools": ["*"]}}, prices={"*": 1})
    assert lines_of(one, one) == []


def test_entries_added_and_removed_are_reported_by_name() -> None:
    old = configured(servers={"a": {"url": "http://a/mcp"}})
    new = configured(servers={"b": {"url": "http://b/mcp"}})
    assert lines_of(old, new) == ["- servers.a", "+ servers.b"]


def test_a_changed_field_is_reported_before_and_after() -> None:
    old = configured(keys={"bot": {"tools": ["a__*"]}}, prices={"*": 1})
    new = configured(keys={"bot": {"tools": ["b__*"]}}, prices={"*": 2})
    assert lines_of(old, new) == ["~ keys.bot: tools ['a__*'] → ['b__*']", "~ prices.*: 1.0 → 2.0"]


def test_neither_a_hash_nor_a_header_is_shown() -> None:
    old = configured(
        keys={"bot": {"secret_hash": "a" * 64}},
        servers={"a": {"url": "http://a/mcp", "headers": {"X": "first"}}},
    )
    new = configured(
        keys={"bot": {"secret_hash": "b" * 64}},
        servers={"a": {"url": "http://a/mcp", "headers": {"X": "second"}}},
    )
    assert lines_of(old, new) == ["~ servers.a: headers changed", "~ keys.bot: secret changed"]
