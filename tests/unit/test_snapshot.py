"""A snapshot is whole: keys open what they should, and a revoked one opens nothing."""

from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.bus import Change
from toolbus_common.declared import Declaration, Key
from toolbus_common.snapshot import DECLARATION, Directory, Snapshot, hash_of, proof_of

NOW = 1_800_000_000.0


def key(secret: str, **fields: object) -> Key:
    return Key.model_validate({"secret_hash": hash_of(proof_of(secret)), **fields})


def declared(revision: int = 1, **keys: Key) -> Change:
    return Change(DECLARATION, Declaration(keys=keys).model_dump_json().encode(), revision)


def own(name: str, made: Key | None, revision: int) -> Change:
    return Change(f"key.{name}", made.model_dump_json().encode() if made else None, revision)


def after(*changes: Change | None) -> Directory:
    directory = Directory()
    for change in changes:
        directory.hear(change)
    return directory


def test_a_secret_opens_its_key_and_a_proof_of_another_opens_none() -> None:
    snapshot = after(declared(bot=key("s3cret")), None).now
    found = snapshot.key_for(proof_of("s3cret"), NOW)
    assert found is not None
    assert found[0] == "bot"
    assert snapshot.key_for(proof_of("other"), NOW) is None


def test_what_is_stored_does_not_open_the_key() -> None:
    made = key("s3cret")
    snapshot = after(declared(bot=made), None).now
    assert snapshot.key_for(made.secret_hash, NOW) is None


def test_nothing_is_shown_before_the_first_picture_is_complete() -> None:
    assert after(declared(bot=key("s"))).now == Snapshot()


def test_a_revoked_key_opens_nothing_at_once() -> None:
    directory = after(declared(bot=key("s")), None)
    directory.hear(own("bot", key("s", revoked=True), 2))
    assert directory.now.key_for(proof_of("s"), NOW) is None
    assert directory.now.version == 2


def test_an_expired_key_opens_nothing() -> None:
    snapshot = after(declared(bot=key("s", expires="2020-01-01")), None).now
    assert snapshot.key_for(proof_of("s"), NOW) is None


def test_a_key_made_at_run_time_wins_until_it_is_deleted() -> None:
    directory = after(declared(bot=key("old")), own("bot", key("new"), 2), None)
    assert directory.now.key_for(proof_of("old"), NOW) is None
    assert directory.now.key_for(proof_of("new"), NOW) is not None
    directory.hear(own("bot", None, 3))
    assert directory.now.key_for(proof_of("old"), NOW) is not None


def test_an_unreadable_entry_changes_nothing() -> None:
    directory = after(declared(bot=key("s")), None)
    directory.hear(Change(DECLARATION, b'{"from": "a newer version"}', 2))
    directory.hear(Change("key.bot", b"{", 3))
    assert directory.now.key_for(proof_of("s"), NOW) is not None


def test_listeners_hear_of_every_whole_snapshot() -> None:
    directory, versions = Directory(), list[int]()
    directory.on_change.append(lambda snapshot: versions.append(snapshot.version))
    for change in (declared(1), own("a", key("a"), 2), None, own("b", key("b"), 3)):
        directory.hear(change)
    assert versions == [2, 3]


@given(order=st.permutations(["a", "b", "c"]), revoked=st.sets(st.sampled_from("abc")))
def test_the_order_of_changes_of_different_keys_does_not_matter(
    order: list[str], revoked: set[str]
) -> None:
    changes = [own(name, key(name, revoked=name in revoked), n) for n, name in enumerate(order, 1)]
    snapshot = after(*changes, None).now
    alive = {name for name in "abc" if snapshot.key_for(proof_of(name), NOW)}
    assert alive == set("abc") - revoked
