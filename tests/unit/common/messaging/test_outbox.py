"""What was spooled is replayed as it was; what a crash tore was never promised."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.messaging.outbox import Outbox, OutboxFullError, record_of
from toolbus_common.nats.connection import Envelope

subjects = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
envelopes = st.builds(Envelope, subjects, subjects, st.binary(max_size=300))


def crashing(spool: Outbox, written: list[Envelope]) -> None:
    """Write, then release the file as a dead process does."""
    spool.append(written)
    spool.close()


@given(batches=st.lists(st.lists(envelopes, min_size=1, max_size=4), max_size=5))
def test_records_are_replayed_in_order(batches: list[list[Envelope]]) -> None:
    with TemporaryDirectory() as directory:
        spool = Outbox(Path(directory) / "deep" / "events", 1 << 20)
        for batch in batches:
            spool.append(batch)
        assert list(spool.replay()) == [envelope for batch in batches for envelope in batch]


@given(written=st.lists(envelopes, min_size=1, max_size=5), data=st.data())
def test_a_torn_record_ends_the_replay_and_loses_nothing_before_it(
    written: list[Envelope], data: st.DataObject
) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "events"
        crashing(Outbox(path, 1 << 20), written)
        file = path.with_name("events.0")
        whole = file.read_bytes()
        kept = data.draw(st.integers(0, len(whole) - 1))
        file.write_bytes(whole[:kept])
        replayed = list(Outbox(path, 1 << 20).replay())
        assert replayed == written[: len(replayed)]
        sizes = [len(record_of(envelope)) for envelope in written]
        assert len(replayed) == sum(sum(sizes[: n + 1]) <= kept for n in range(len(sizes)))


def test_a_record_appended_after_a_torn_one_is_replayed_too(tmp_path: Path) -> None:
    path = tmp_path / "events"
    first, torn, later = (Envelope("tb.event.x", f"id{n}", b"payload") for n in range(3))
    crashing(Outbox(path, 1 << 20), [first, torn])
    file = tmp_path / "events.0"
    file.write_bytes(file.read_bytes()[:-3])
    restarted = Outbox(path, 1 << 20)
    assert list(restarted.replay()) == [first]
    restarted.append([later])
    assert list(restarted.replay()) == [first, later]


def test_replicas_that_share_a_directory_do_not_touch_each_others_records(tmp_path: Path) -> None:
    one, two = Outbox(tmp_path / "events", 1 << 20), Outbox(tmp_path / "events", 1 << 20)
    first, second = Envelope("s", "1", b"one"), Envelope("s", "2", b"two")
    one.append([first])
    two.append([second])
    assert (list(one.replay()), list(two.replay())) == ([first], [second])
    two.clear()
    assert list(one.replay()) == [first]


def test_the_records_of_a_dead_replica_are_taken_over_once(tmp_path: Path) -> None:
    alive, dead = Outbox(tmp_path / "events", 1 << 20), Outbox(tmp_path / "events", 1 << 20)
    list(alive.replay())
    crashing(dead, [Envelope("s", "1", b"one")])
    heir, late = Outbox(tmp_path / "events", 1 << 20), Outbox(tmp_path / "events", 1 << 20)
    assert list(heir.replay()) == [Envelope("s", "1", b"one")]
    assert list(late.replay()) == list(alive.replay()) == []


def test_a_full_outbox_rejects_and_keeps_its_records(tmp_path: Path) -> None:
    envelope = Envelope("tb.event.x", "id", b"x" * 50)
    spool = Outbox(tmp_path / "events", 2 * len(record_of(envelope)))
    spool.append([envelope])
    spool.append([envelope])
    with pytest.raises(OutboxFullError):
        spool.append([envelope])
    assert list(spool.replay()) == [envelope, envelope]


def test_a_cleared_or_missing_spool_replays_nothing(tmp_path: Path) -> None:
    spool = Outbox(tmp_path / "events", 1 << 20)
    assert list(spool.replay()) == []
    spool.append([Envelope("s", "i", b"p")])
    spool.clear()
    spool.clear()
    assert list(spool.replay()) == []
