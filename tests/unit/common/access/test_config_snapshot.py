"""A snapshot is complete and never changes; a revoked key has no access."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.builders.configurations import configuration_change
from toolbus_common.access.config_snapshot import (
    ConfigSnapshot,
    ConfigView,
    hash_of,
    key_digest_of,
)
from toolbus_common.access.key_index import KeyIndex
from toolbus_common.access.principal import principal_of
from toolbus_common.config import Configuration, Key, Server
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION

NOW = 1_800_000_000.0


def key(secret: str, **fields: object) -> Key:
    return Key.model_validate({"secret_hash": hash_of(key_digest_of(secret)), **fields})


def declared(revision: int = 1, **keys: Key) -> Change:
    return configuration_change(Configuration(keys=keys), revision)


def own(name: str, made: Key | None, revision: int) -> Change:
    return Change(f"key.{name}", made.model_dump_json().encode() if made else None, revision)


def after(*changes: Change | None) -> ConfigView:
    directory = ConfigView()
    for change in changes:
        directory.projection.apply_change(change)
    return directory


def test_a_key_digest_finds_its_own_key_only() -> None:
    snapshot = after(declared(bot=key("s3cret")), None).now
    found = snapshot.principal_for(key_digest_of("s3cret"), NOW)
    assert found is not None
    assert found.key == "bot"
    assert snapshot.principal_for(key_digest_of("other"), NOW) is None


def test_the_stored_hash_is_not_accepted_as_a_digest() -> None:
    made = key("s3cret")
    snapshot = after(declared(bot=made), None).now
    assert snapshot.principal_for(made.secret_hash, NOW) is None


def test_no_snapshot_exists_before_the_first_load_is_complete() -> None:
    directory = after(declared(bot=key("s")), own("cat", key("c"), 2))
    assert list(directory.now.keys) == []
    directory.projection.apply_change(None)
    assert set(directory.now.keys) == {"bot", "cat"}


def test_a_revoked_key_is_rejected_at_once() -> None:
    directory = after(declared(bot=key("s")), None)
    directory.projection.apply_change(own("bot", key("s", revoked=True), 2))
    assert directory.now.principal_for(key_digest_of("s"), NOW) is None
    assert directory.now.version == 2


def test_an_expired_key_is_rejected() -> None:
    snapshot = after(declared(bot=key("s", expires="2020-01-01")), None).now
    assert snapshot.principal_for(key_digest_of("s"), NOW) is None


def test_a_key_created_at_run_time_overrides_until_deleted() -> None:
    directory = after(declared(bot=key("old")), own("bot", key("new"), 2), None)
    assert directory.now.principal_for(key_digest_of("old"), NOW) is None
    assert directory.now.principal_for(key_digest_of("new"), NOW) is not None
    directory.projection.apply_change(own("bot", None, 3))
    assert directory.now.principal_for(key_digest_of("old"), NOW) is not None


def test_an_unreadable_entry_changes_nothing() -> None:
    directory = after(declared(bot=key("s")), None)
    directory.projection.apply_change(Change(CONFIGURATION, b'{"from": "a newer version"}', 2))
    directory.projection.apply_change(Change("key.bot", b"{", 3))
    assert directory.now.principal_for(key_digest_of("s"), NOW) is not None


def test_an_unreadable_entry_is_named_until_a_readable_one_replaces_it() -> None:
    directory = after(declared(bot=key("s")), None)
    assert directory.projection.fault == ""
    newer = b'{"servers": {"docs": {"url": "https://docs.example", "later": "a secret"}}}'
    directory.projection.apply_change(Change(CONFIGURATION, newer, 2))
    assert "'configuration'" in directory.projection.fault
    assert "(servers.docs.later)" in directory.projection.fault
    assert "a secret" not in directory.projection.fault
    directory.projection.apply_change(declared(3, bot=key("s")))
    assert directory.projection.fault == ""


def test_change_handlers_receive_the_changed_key_or_the_configuration() -> None:
    directory, received = after(declared(), None), list[str]()
    directory.projection.on_configured.append(
        lambda: received.append(f"declared {directory.now.version}")
    )
    directory.projection.on_key.append(
        lambda name: received.append(f"{name} {directory.now.version}")
    )
    for change in (own("a", key("a"), 2), declared(3), own("a", None, 4)):
        directory.projection.apply_change(change)
    assert received == ["a 2", "declared 3", "a 4"]


def test_changes_that_arrive_together_are_applied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    original = KeyIndex.changed

    def noted(ring: KeyIndex, keys: Mapping[str, Key | None]) -> KeyIndex:
        taken.append(len(keys))
        return original(ring, keys)

    directory = after(declared(bot=key("s")), None)
    assert directory.now.version == 1
    monkeypatch.setattr(KeyIndex, "changed", noted)
    for number in range(250):
        directory.projection.apply_change(own(f"k{number}", key(f"s{number}"), number + 2))
    assert directory.now.principal_for(key_digest_of("s249"), NOW) is not None
    assert directory.now is directory.now
    assert taken == [250]


def test_a_snapshot_does_not_change_under_its_reader() -> None:
    directory = after(declared(bot=key("s")), own("cat", key("c"), 2), None)
    before = directory.now
    directory.projection.apply_change(own("bot", key("s", revoked=True), 3))
    directory.projection.apply_change(own("cat", None, 4))
    directory.projection.apply_change(own("dog", key("d"), 5))
    assert directory.now.version == 5
    assert before.version == 2
    assert set(before.keys) == {"bot", "cat"}
    assert [before.principal_for(key_digest_of(each), NOW) is not None for each in "scd"] == [
        1,
        1,
        0,
    ]
    assert [directory.now.principal_for(key_digest_of(e), NOW) is not None for e in "scd"] == [
        0,
        0,
        1,
    ]


def test_a_principal_is_cached_until_its_key_or_the_configuration_changes() -> None:
    directory = after(declared(bot=key("s", tools=["a__*"]), cat=key("c")), None)
    bot, cat = (directory.now.principal(name) for name in ("bot", "cat"))
    directory.projection.apply_change(own("cat", key("c", tools=["*"]), 2))
    assert directory.now.principal("bot") is bot
    assert directory.now.principal("cat").bounds.cover("b__x")
    assert not cat.bounds.cover("b__x")
    server = Server(url="http://127.0.0.1:1/mcp", expose=("read",))
    changed_server = Configuration(servers={"a": server}, keys={"bot": bot.own})
    directory.projection.apply_change(configuration_change(changed_server, 3))
    assert directory.now.principal("bot").bounds.cover("a__read")
    assert not directory.now.principal("bot").bounds.cover("a__write")
    assert bot.bounds.cover("a__write")


def test_an_older_snapshot_does_not_restore_old_rights() -> None:
    directory = after(own("bot", key("s", tools=["*"]), 1), None)
    before = directory.now
    directory.projection.apply_change(own("bot", key("s", tools=[]), 2))
    assert not directory.now.principal("bot").bounds.cover("a__x")
    assert before.principal("bot").bounds.cover("a__x")
    assert not directory.now.principal("bot").bounds.cover("a__x")


def test_of_keys_with_one_secret_the_first_by_name_applies() -> None:
    directory = after(own("b", key("s"), 1), None)
    for change, named in (
        (own("a", key("s"), 2), "a"),
        (own("c", key("s"), 3), "a"),
        (own("a", None, 4), "b"),
        (own("b", key("other"), 5), "c"),
    ):
        directory.projection.apply_change(change)
        found = directory.now.principal_for(key_digest_of("s"), NOW)
        assert found is not None
        assert found.key == named


NAMES = st.sampled_from("abcdefgh")
KEYS = st.builds(
    lambda secret, tools, revoked: (
        key(secret, tools=tools, revoked=revoked) if secret else Key(tools=tools)
    ),
    st.sampled_from(["", "s", "t", "u", "v"]),
    st.lists(st.sampled_from(["*", "a__*", "b__x"]), max_size=2),
    st.booleans(),
)
CHANGES = st.one_of(
    st.builds(lambda name, made: own(name, made, 0), NAMES, st.none() | KEYS),
    st.builds(lambda keys: declared(0, **keys), st.dictionaries(NAMES, KEYS, max_size=4)),
    st.just(Change(CONFIGURATION, None, 0)),
)


@given(changes=st.lists(st.tuples(CHANGES, st.booleans()), max_size=25))
def test_incremental_changes_equal_a_full_load(
    changes: list[tuple[Change, bool]],
) -> None:
    directory, entries = after(None), dict[str, bytes | None]()
    held: list[tuple[ConfigSnapshot, object]] = []
    for revision, (change, looked_at) in enumerate(changes, 1):
        directory.projection.apply_change(replace(change, revision=revision))
        entries[change.key] = change.value
        if looked_at:
            held.append((directory.now, seen(directory.now)))
    fresh = after(*(Change(name, value, 1) for name, value in entries.items()), None)
    assert seen(directory.now) == seen(fresh.now) == expected(entries)
    assert [seen(snapshot) for snapshot, _ in held] == [before for _, before in held]


def seen(snapshot: ConfigSnapshot) -> object:
    """Return all a reader can observe of the keys."""
    found = {each: snapshot.principal_for(key_digest_of(each), NOW) for each in "stuv"}
    opened = {secret: principal and principal.key for secret, principal in found.items()}
    assert len(snapshot.keys) == len(list(snapshot.keys))
    principals = {name: snapshot.principal(name).bounds for name in snapshot.keys}
    return dict(snapshot.keys), opened, principals


def expected(entries: dict[str, bytes | None]) -> object:
    """Return the expected snapshot, computed in the simplest way."""
    configuration = Configuration.model_validate_json(entries.get(CONFIGURATION) or b"{}")
    keys = dict(configuration.keys)
    for name, value in entries.items():
        if name != CONFIGURATION and value is not None:
            keys[name.removeprefix("key.")] = Key.model_validate_json(value)
    opened: dict[str, str | None] = {}
    for secret in "stuv":
        stored = hash_of(key_digest_of(secret))
        owners = sorted(name for name, each in keys.items() if each.secret_hash == stored)
        opened[secret] = owners[0] if owners and not keys[owners[0]].revoked else None
    bounds = {name: principal_of(name, each, configuration).bounds for name, each in keys.items()}
    return keys, opened, bounds


@given(order=st.permutations(["a", "b", "c"]), revoked=st.sets(st.sampled_from("abc")))
def test_the_order_of_changes_of_different_keys_does_not_matter(
    order: list[str], revoked: set[str]
) -> None:
    changes = [own(name, key(name, revoked=name in revoked), n) for n, name in enumerate(order, 1)]
    snapshot = after(*changes, None).now
    alive = {name for name in "abc" if snapshot.principal_for(key_digest_of(name), NOW)}
    assert alive == set("abc") - revoked
