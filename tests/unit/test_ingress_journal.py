"""Journals and the shelf they are kept on: nothing twice, nothing unbounded, nobody else's."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.waiting import PATIENCE
from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_ingress.sessions import event_log_store as rules
from toolbus_ingress.sessions.event_log import LARGEST, Journal
from toolbus_ingress.sessions.event_log_store import ANSWER, STANDING, Place, Shelf, place_of
from toolbus_ingress.sessions.sealed_claims import Seal
from toolbus_ingress.sessions.session_store import Session, Sessions

KEY_DIGEST, OTHER = "a" * 64, "b" * 64


def begun(key_digest: str = KEY_DIGEST, version: str = "2025-11-25") -> Session:
    return Sessions(Seal(b"k" * KEY_BYTES), lambda _said: None).begin(key_digest, version, {})


async def rest(journal: Journal, after: int = 0) -> list[bytes]:
    """Everything behind a number, of a journal that has ended."""
    reader, found = journal.read(after), []
    while (entry := await reader.next()) is not None:
        found.append(entry[1])
    reader.leave()
    return found


# -- journals --------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20), max_size=40), st.integers(0, 50))
def test_who_comes_back_hears_exactly_what_came_after(said: list[bytes], after: int) -> None:
    journal = Journal("a0.1")
    for message in said:
        journal.put(message)
    journal.close()
    assert asyncio.run(rest(journal, after)) == said[after:]
    assert asyncio.run(rest(journal, after)) == said[after:], "and once more"


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=40), st.integers(1, 10))
def test_a_journal_holds_the_newest_within_its_bounds(said: list[bytes], most: int) -> None:
    journal = Journal("a0.1", most, bound=60)
    sizes: list[int] = []
    journal.on_grown = sizes.append
    for message in said:
        journal.put(message)
    journal.close()
    kept = asyncio.run(rest(journal))
    assert kept == said[-len(kept) :]
    assert 0 < len(kept) <= most
    assert sum(map(len, kept)) <= 60
    assert journal.size == sum(sizes) == sum(map(len, kept))


def test_the_newest_is_kept_whatever_its_size() -> None:
    journal = Journal("a0.1")
    journal.put(b"early")
    journal.put(b"x" * (LARGEST + 1))
    journal.close()
    assert [len(message) for message in asyncio.run(rest(journal))] == [LARGEST + 1]


async def test_a_journal_without_a_name_keeps_nothing_that_was_read() -> None:
    journal = Journal()
    journal.put(b"1")
    reader = journal.read()
    assert await reader.next() == (1, b"1")
    assert (journal.size, journal.next(0)) == (0, None)


async def test_a_reader_that_falls_behind_loses_what_was_first_and_never_the_end() -> None:
    journal = Journal(most=2)
    for number in range(5):
        journal.put(b"%d" % number)
    journal.close()
    assert await rest(journal) == [b"3", b"4"]


async def test_a_new_reader_sends_the_one_before_away() -> None:
    journal = Journal("a0.1")
    first = asyncio.create_task(journal.read().next())
    await asyncio.sleep(0)
    second = journal.read()
    journal.put(b"1")
    assert await first is None
    assert await second.next() == (1, b"1")


async def test_a_paused_reader_hears_all_there_was_and_goes() -> None:
    journal = Journal("a0.1")
    reader = journal.read()
    journal.put(b"1")
    journal.pause(500)
    journal.put(b"2")
    assert [await reader.next() for _ in range(3)] == [(1, b"1"), (2, b""), None]
    journal.close()
    assert await rest(journal, 2) == [b"2"]


async def test_pauses_in_a_row_take_one_number() -> None:
    journal = Journal("a0.1")
    for _ in range(1000):
        journal.pause(1)
    assert journal.last == 1


@given(st.lists(st.tuples(st.integers(1, 30), st.binary(max_size=3)), max_size=30))
def test_what_another_replica_tells_again_is_heard_once(told: list[tuple[int, bytes]]) -> None:
    journal = Journal("a0.1")
    journal.keeps = False
    newest = 0
    for number, message in told:
        journal.hear(number, message)
        newest = max(newest, number)
    assert journal.last == newest
    journal.close()
    heard: list[bytes] = asyncio.run(rest(journal))
    expected, last = [], 0
    for number, message in told:
        if number > last:
            expected.append(message)
            last = number
    assert heard == expected


# -- where an event's id leads ---------------------------------------------------------------------


@given(st.binary(max_size=80))
def test_any_bytes_are_an_id_of_ours_or_none(event_id: bytes) -> None:
    place = place_of(event_id)
    assert place is None or place_of(f"{place.stream}-{place.number}".encode()) == place


@given(st.sampled_from([ANSWER, STANDING]), st.integers(0, 10**9), st.integers(0, 10**9))
def test_an_id_says_where_its_client_was(kind: str, count: int, number: int) -> None:
    stream = f"{kind}0123456789ab.{count:x}"
    place = place_of(f"{stream}-{number}".encode())
    assert place == Place(stream, number)
    assert (place.replica, place.standing) == ("0123456789ab", kind == STANDING)


@pytest.mark.parametrize(
    "odd",
    ["", "x", "-1", "a-1", "a.1-1", "a0.-1", "a0.1-", "a0.1--1", "x0.1-1", "a*.1-1", "a0.>-1",
     "a0.1-\u0661", "a0 .1-1", "a0.1.1-1", "a" + "0" * 70 + ".1-1"],
)  # fmt: skip
def test_what_is_no_id_of_ours_leads_nowhere(odd: str) -> None:
    assert place_of(odd.encode()) is None


# -- the shelf -------------------------------------------------------------------------------------


async def test_a_stream_is_found_in_its_own_session_only() -> None:
    shelf, mine, other = Shelf(), begun(), begun(OTHER)
    journal = shelf.open(mine, ANSWER, 10)
    assert shelf.find(mine.sid, journal.name) is journal
    assert shelf.find(other.sid, journal.name) is None
    assert shelf.find(begun().sid, journal.name) is None, "nor in another of the same key"
    shelf.close()


@pytest.mark.parametrize("session", [None, begun(version="2024-11-05")])
def test_where_nobody_can_come_back_nothing_is_kept(session: Session | None) -> None:
    shelf = Shelf()
    assert shelf.open(session, ANSWER, 10).name == ""
    assert len(shelf) == 0


async def test_one_principal_holds_so_many_streams_and_bytes_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "MOST_BYTES_EACH", 100)
    shelf, mine, other = Shelf(), begun(), begun(OTHER)
    theirs = shelf.open(other, ANSWER, 10)
    theirs.put(b"x" * 90)
    made = [shelf.open(mine, ANSWER, 10) for _ in range(rules.MOST_KEPT_EACH + 5)]
    assert len(shelf) == rules.MOST_KEPT_EACH + 1
    assert [shelf.find(mine.sid, journal.name) for journal in made[:5]] == [None] * 5
    made[-2].put(b"y" * 60)
    made[-1].put(b"z" * 60)
    assert shelf.find(mine.sid, made[-2].name) is None
    assert shelf.find(mine.sid, made[-1].name) is made[-1]
    assert shelf.find(other.sid, theirs.name) is theirs
    shelf.close()
    assert (len(shelf), shelf._size, shelf._holdings) == (0, 0, {})


async def test_all_principals_together_hold_so_much_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "MOST_KEPT", 3)
    shelf = Shelf()
    sessions = [begun(f"{number:064}") for number in range(5)]
    made = [(session, shelf.open(session, ANSWER, 10)) for session in sessions]
    found = [shelf.find(session.sid, journal.name) for session, journal in made]
    assert found == [None, None, *(journal for _, journal in made[2:])]
    shelf.close()


async def test_a_stream_that_is_read_goes_last_and_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "MOST_KEPT_EACH", 2)
    shelf, session = Shelf(), begun()
    first, second = (shelf.open(session, ANSWER, 10) for _ in range(2))
    reader = first.read()
    shelf.open(session, ANSWER, 10).read()
    assert shelf.find(session.sid, second.name) is None
    assert second.ended
    shelf.open(session, ANSWER, 10)
    assert shelf.find(session.sid, first.name) is None
    first.put(b"still")
    assert await reader.next() == (1, b"still")
    reader.leave()
    assert first.ended, "with its reader it is gone"
    shelf.close()


async def test_what_nobody_reads_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, session = Shelf(), begun()
    journal = shelf.open(session, STANDING, 10)
    journal.read().leave()
    (kept,) = shelf._kept.values()
    assert kept.expiry is not None
    reader = journal.read()
    assert kept.expiry is None, "somebody reads it again"
    monkeypatch.setattr(rules, "KEEP_SECONDS", 0.0)
    ended = asyncio.Event()
    journal.on_ended = ended.set
    reader.leave()
    async with asyncio.timeout(PATIENCE):
        await ended.wait()
    assert len(shelf) == 0


async def test_with_a_session_go_its_streams() -> None:
    shelf, session, other = Shelf(), begun(), begun()
    gone, stays = shelf.open(session, ANSWER, 10), shelf.open(other, ANSWER, 10)
    shelf.leave(session.sid)
    assert shelf.find(session.sid, gone.name) is None
    assert shelf.find(other.sid, stays.name) is stays
    shelf.close()
